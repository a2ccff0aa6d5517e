"""Leases: one writer at a time, real processes that die or sleep, and nothing published by one that lost its place."""

import json
import signal
import subprocess
import sys
import threading
import time

import pytest

from retain_core import lease as module
from retain_core.lease import Lease, LeaseLostError, hold
from retain_core.store import Store
from tests.conftest import ROOT

WRITER = """
import sys
from pathlib import Path
from retain_core.store import Store

store = Store(Path(sys.argv[1]))
store.prepare()
with store.leased("thing-abc"):
    print("mine", flush=True)
    sys.stdin.readline()
    with store.create("thing", "abc", {}) as draft:
        (draft.path / "who").write_text("the first writer")
    print("published", flush=True)
"""


@pytest.fixture
def writer(tmp_path):
    """A process that holds the lease of `thing-abc` and publishes it when told to."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT, **pipes)
    assert process.stdout.readline() == "mine\n"
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path)
    made.prepare()
    return made


def publish(store):
    with store.create("thing", "abc", {}) as draft:
        (draft.path / "who").write_text("the second writer")


def test_a_living_holder_is_waited_for(writer, store):
    assert Lease(store.root / ".leases", "thing-abc").take()["pid"] == writer.pid
    got = threading.Event()

    def wait():
        with store.leased("thing-abc"):
            got.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert not got.wait(1.5 * module.POLL_SECONDS)
    out, err = writer.communicate("go\n", timeout=20)
    assert out == "published\n", err
    waiting.join(timeout=20)
    assert got.is_set()
    assert store.find("thing", "abc").file("who").read_text() == "the first writer"
    assert list((store.root / ".leases").glob("[!.]*")) == []


def test_the_lease_of_a_killed_process_is_free_at_once(writer, store):
    writer.send_signal(signal.SIGKILL)
    started = time.monotonic()
    with store.leased("thing-abc"):  # its parent has not even noticed: it is a zombie
        assert time.monotonic() - started < 10
        publish(store)
    assert store.find("thing", "abc")


def test_a_writer_that_was_only_asleep_publishes_nothing(writer, store, monkeypatch):
    """Another took its work over meanwhile, and is still at it when the first wakes up."""
    writer.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(module, "EXPIRES_SECONDS", 0.5)
    with store.leased("thing-abc"):
        monkeypatch.undo()
        writer.send_signal(signal.SIGCONT)
        out, err = writer.communicate("go\n", timeout=20)
        assert (out, writer.returncode) == ("", 1)
        assert "LeaseLostError: thing-abc was taken over by process" in err
        assert store.find("thing", "abc") is None
        publish(store)
    assert store.find("thing", "abc").file("who").read_text() == "the second writer"
    assert list((store.root / ".drafts").iterdir()) == []


def test_nor_does_it_when_the_other_is_done_and_gone(writer, store, monkeypatch):
    writer.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(module, "EXPIRES_SECONDS", 0.5)
    with store.leased("thing-abc"):
        publish(store)
    store.forget("thing", "abc")
    writer.send_signal(signal.SIGCONT)
    _, err = writer.communicate("go\n", timeout=20)
    assert "was taken over by nobody" in err
    assert store.find("thing", "abc") is None


def test_a_holder_renews_its_lease_for_as_long_as_it_works(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.05)

    def renewed():
        return json.loads((tmp_path / "work.json").read_text())["renewed_at"]

    with hold(tmp_path, "work") as lease:
        first = renewed()
        while renewed() == first:
            time.sleep(0.01)
        with lease.held():
            pass
    assert not (tmp_path / "work.json").exists()


@pytest.mark.parametrize(("seconds", "free"), [(30, False), (1000, True)])
def test_of_another_machine_only_the_clock_is_known(tmp_path, seconds, free):
    there = {"token": "x", "host": "elsewhere", "boot": "", "pid": 1, "started": 0.0, "renewed_at": time.time() - seconds}
    (tmp_path / "work.json").write_text(json.dumps(there))
    lease = Lease(tmp_path, "work")
    assert (lease.take() is None) == free
    if free:
        lease.release()
    else:
        with pytest.raises(LeaseLostError, match="process 1 on elsewhere"), lease.held():
            pass
        lease.release()
        assert json.loads((tmp_path / "work.json").read_text())["token"] == "x"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"token": "x"}'])
def test_a_file_that_is_no_lease_is_nobodys(tmp_path, text):
    (tmp_path / "work.json").write_text(text)
    with hold(tmp_path, "work"):
        pass


def test_leases_nest(store):
    with store.leased("arm-a"):
        with store.leased("traces-b"):
            publish(store)
        (store.root / ".leases" / "arm-a.json").unlink()
        with pytest.raises(LeaseLostError):
            publish(store)
