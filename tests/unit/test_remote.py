"""A store on object storage: a real S3 protocol over loopback, two homes, two writers."""

import json
import os
import threading
import uuid

import pytest

from retain_core import lease, remote
from retain_core.bucket import Bucket
from retain_core.errors import InputError, RetainError
from retain_core.lease import LeaseLostError
from retain_core.remote import RemoteLease, RemoteStore, open_store, store_at
from retain_core.settings import Settings
from retain_core.store import Store
from tests.s3 import ENVIRONMENT, s3_server

pytest.importorskip("s3fs", reason="pip install 'retain[s3]'")


@pytest.fixture(scope="module")
def server():
    with pytest.MonkeyPatch.context() as patch, s3_server() as address:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": address}.items():
            patch.setenv(name, value)
        yield address


@pytest.fixture
def bucket(server):
    return Bucket(f"s3://retain/{uuid.uuid4().hex}")


@pytest.fixture
def homes(bucket, tmp_path):
    found = [RemoteStore(tmp_path / name / "artifacts", bucket) for name in "ab"]
    for store in found:
        store.prepare()
    return found


def make(store, text="hello", key="abc"):
    with store.create("thing", key, {"x": 1}) as draft:
        (draft.path / "sub").mkdir()
        (draft.path / "sub" / "file.txt").write_text(text)
        (draft.path / "empty").touch()
        draft.meta["length"] = len(text)


def test_another_home_reads_what_one_made_and_keeps_a_verified_copy(homes, bucket):
    a, b = homes
    assert b.find("thing", "abc") is None
    make(a)
    found = b.get("thing", "abc")
    assert found.file("sub/file.txt").read_text() == "hello"
    assert found.meta == {"length": 5}
    assert found.seal == a.get("thing", "abc").seal
    assert a.keys("thing") == b.keys("thing") == ["abc"]
    found.file("sub/file.txt").write_text("hullo")
    assert b.get("thing", "abc").file("sub/file.txt").read_text() == "hello", "a damaged copy is fetched again"
    assert bucket.read("thing/abc/manifest.json")


def test_of_two_writers_of_one_key_one_wins_and_both_read_its_bytes(homes):
    for round_ in range(5):
        key, begin = f"k{round_}", threading.Barrier(2)

        def write(store, text, key=key, begin=begin):
            begin.wait()
            make(store, text, key)

        threads = [
            threading.Thread(target=write, args=(store, text)) for store, text in zip(homes, ["one", "two"], strict=True)
        ]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        texts = {store.get("thing", key).file("sub/file.txt").read_text() for store in homes}
        assert len(texts) == 1
        assert not any(store.damaged for store in homes)


@pytest.mark.parametrize("harm", ["truncated", "removed", "manifest", "escape"])
def test_what_is_damaged_is_set_aside_and_made_again(homes, bucket, harm):
    a, b = homes
    make(a)
    manifest = bucket.read("thing/abc/manifest.json")
    body = json.loads(manifest.content)
    name = f"thing/abc/{body['files']['sub/file.txt']['sha256']}/sub/file.txt"
    if harm == "truncated":
        assert bucket.write(name, b"hel", etag=bucket.read(name).etag)
    elif harm == "removed":
        bucket.remove(name)
    elif harm == "manifest":
        assert bucket.write("thing/abc/manifest.json", manifest.content[:-9], etag=manifest.etag)
    else:
        body["files"] = {"../../outside": body["files"]["empty"]}
        assert bucket.write("thing/abc/manifest.json", json.dumps(body).encode(), etag=manifest.etag)
    reader = RemoteStore(b.root, bucket, read_only=True)
    assert reader.find("thing", "abc") is None
    assert bucket.read("thing/abc/manifest.json"), "a reader changes nothing"
    assert b.find("thing", "abc") is None
    (sentence,) = b.damaged
    assert "set aside as s3://retain/" in sentence
    assert len(bucket.names(".quarantine")) == 1
    assert not list(b.root.parent.rglob("outside"))
    make(b)
    fresh = RemoteStore(a.root.parent / "c", bucket)
    assert fresh.get("thing", "abc").file("sub/file.txt").read_text() == "hello"


def test_what_fails_leaves_nothing(homes, bucket):
    a, _ = homes
    with pytest.raises(ZeroDivisionError), a.create("thing", "abc", {}) as draft:
        (draft.path / "file").touch()
        raise ZeroDivisionError
    assert bucket.names("thing") == []
    assert list((a.root / ".drafts").iterdir()) == []


def test_an_unfinished_training_is_seen_elsewhere_and_gone_when_it_is_done(homes, bucket):
    a, b = homes
    make(a.unfinished("thing", "abc"), "state", key="3")
    left = b.unfinished("thing", "abc")
    left.prepare()
    left.remove_leftovers()
    assert left.keys("thing") == ["3"]
    assert left.get("thing", "3").file("sub/file.txt").read_text() == "state"
    make(left, "later", key="4")
    left.forget("thing", "3")
    assert a.unfinished("thing", "abc").keys("thing") == ["4"]
    make(b)
    a.remove_leftovers()
    assert bucket.names(".resume") == []
    left.remove()
    assert not left.root.exists()


def test_a_lease_is_held_by_one_machine(homes, monkeypatch):
    a, b = homes
    order = []

    def second():
        with b.leased("thing-abc"):
            order.append("b")

    with a.leased("thing-abc"):
        assert a.living() == b.living() == {"thing-abc"}
        other = threading.Thread(target=second)
        other.start()
        other.join(timeout=1.5)
        assert other.is_alive()
        make(a)
        order.append("a")
    other.join(timeout=20)
    assert order == ["a", "b"]
    assert a.living() == set()


def test_who_was_asleep_cannot_publish(homes, bucket, monkeypatch):
    a, b = homes
    with pytest.raises(LeaseLostError, match="taken over"), a.leased("thing-abc"):
        monkeypatch.setattr(remote, "alive", lambda holder: False)  # a minute and a half passes
        with b.leased("thing-abc"):
            monkeypatch.undo()
            assert a.living() == {"thing-abc"}
            with pytest.raises(LeaseLostError):
                make(a)
            make(b, "by b")
            assert a.get("thing", "abc").file("sub/file.txt").read_text() == "by b"
            make(a, key="other")


def test_of_many_that_take_a_free_lease_one_gets_it(bucket):
    for name in ("new", "given back"):
        if name == "given back":
            first = RemoteLease(bucket, name)
            assert first.take() is None
            first.release()
        leases, begin = [RemoteLease(bucket, name) for _ in range(6)], threading.Barrier(6)
        taken = []

        def take(one, begin=begin, taken=taken):
            begin.wait()
            if one.take() is None:
                taken.append(one)

        threads = [threading.Thread(target=take, args=(one,)) for one in leases]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert len(taken) == 1
        taken[0].release()


def test_a_lease_whose_process_is_gone_is_free_at_once(bucket):
    gone = {**lease.this_process(), "token": "x", "renewed_at": 1e12, "started": 1.0}
    assert bucket.write(".leases/thing.json", json.dumps(gone).encode(), etag=None)
    one = RemoteLease(bucket, "thing")
    assert one.take() is None
    one.release()


def test_a_declaration_is_not_lost_between_two_machines(homes):
    a, b = homes
    assert not a.note("studies", "s").exists()
    assert not b.note("studies", "s").exists()
    a.write_note("studies", "s", "[1]")
    with pytest.raises(RetainError, match="another machine"):
        b.write_note("studies", "s", "[2]")
    assert b.note("studies", "s").read_text() == "[1]"
    b.write_note("studies", "s", "[1, 2]")
    assert a.note("studies", "s").read_text() == "[1, 2]"
    assert a.notes("studies") == b.notes("studies") == ["s"]


def test_an_address_opens_the_same_store(homes, tmp_path):
    a, _ = homes
    make(a)
    assert store_at(a.address).get("thing", "abc")
    assert type(store_at(str(tmp_path))) is Store


def test_settings_name_the_store(server, tmp_path, monkeypatch):
    assert open_store(Settings(home=tmp_path)).root == tmp_path / "artifacts"
    monkeypatch.setenv("RETAIN_ARTIFACTS", str(tmp_path / "shared"))
    assert open_store(Settings(home=tmp_path)).root == tmp_path / "shared"
    monkeypatch.setenv("RETAIN_ARTIFACTS", "s3://retain/x")
    assert open_store(Settings(home=tmp_path)).address == f"{tmp_path / 'artifacts'}::s3://retain/x"
    with pytest.raises(InputError, match="s3://bucket/prefix"):
        open_store(Settings(home=tmp_path, artifacts_at="ftp://example.org/x"))


def test_a_server_that_is_away_or_lacks_the_bucket_is_one_sentence(server, tmp_path, monkeypatch):
    with pytest.raises(RetainError, match=r"s3://no-such-bucket/x cannot be reached: .*bucket") as caught:
        RemoteStore(tmp_path / "a", Bucket("s3://no-such-bucket/x")).prepare()
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()
    with pytest.raises(RetainError, match=r"s3://retain/x cannot be reached: .*127.0.0.1:9") as caught:
        RemoteStore(tmp_path / "b", Bucket("s3://retain/x")).prepare()
    assert "\n" not in str(caught.value)
    S3FileSystem.clear_instance_cache()
    assert os.environ["AWS_ENDPOINT_URL"]
