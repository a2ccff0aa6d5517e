"""One process per accelerator, by the locks that all processes of a machine see."""

import itertools
import os
import subprocess
import sys
import time

import pytest

from retain_core.devices import CHOICE, reserved, visible
from retain_core.errors import InputError
from tests.conftest import ROOT

USES = """
import os, sys, time
from retain_core.devices import reserved
with reserved(int(sys.argv[1]), sys.argv[2].split(",")) as taken:
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ",".join(taken)
    print(time.time(), *taken, flush=True)
    time.sleep(float(sys.argv[3]))
    print(time.time(), flush=True)
"""


def use(count, devices, seconds, folder):
    command = [sys.executable, "-c", USES, str(count), ",".join(devices), str(seconds)]
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("count", [1, 2])
def test_a_device_has_one_process_at_a_time_and_all_come_to_their_turn(tmp_path, count):
    processes = [use(count, "abc", 0.3, tmp_path) for _ in range(7)]
    spans = []
    for process in processes:
        begun, ended = process.communicate(timeout=60)[0].splitlines()
        began, *taken = begun.split()
        assert process.returncode == 0
        assert len(set(taken)) == count
        spans += [(device, float(began), float(ended)) for device in taken]
    assert len({device for device, *_ in spans}) >= 2
    for device in "abc":
        times = sorted((began, ended) for name, began, ended in spans if name == device)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(times))


def test_the_device_of_a_killed_process_is_free_at_once(tmp_path):
    first = use(1, "a", 600, tmp_path)
    first.stdout.readline()
    second = use(1, "a", 0, tmp_path)
    time.sleep(0.5)
    assert second.poll() is None
    first.kill()
    first.wait()
    assert second.communicate(timeout=30)[0].split()[1] == "a"
    first.stdout.close()


def test_more_than_there_are_is_refused_and_none_are_left_alone(monkeypatch):
    with pytest.raises(InputError, match=r"wants 3 accelerators, and this machine has 2 \(a, b\)"), reserved(3, ["a", "b"]):
        pass
    monkeypatch.setenv(CHOICE, "")
    assert visible() == []
    with reserved() as taken:
        assert taken == ()
    assert os.environ[CHOICE] == ""
