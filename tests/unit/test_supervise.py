"""Ending processes, whatever state they are in."""

import subprocess
import sys

import psutil
import pytest

from retain_core.supervise import end

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"


@pytest.fixture
def started():
    running = []

    def start(code):
        running.append(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()


def test_all_end_though_one_is_gone_already_and_one_is_deaf(started):
    gone, deaf, willing = started("pass"), started(DEAF), started("import time; time.sleep(600)")
    known = [psutil.Process(process.pid) for process in (gone, deaf, willing)]
    assert deaf.stdout.readline() == "deaf\n"
    gone.wait()
    assert not known[0].is_running()
    end(known, grace=1)
    assert psutil.wait_procs(known, timeout=20)[1] == []
