"""Arms on a pool beside a busy Prefect: its API is asked again, and a run has time to take its lease."""

import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from uuid import uuid4

import httpx
import pytest

from retain_core import workers
from retain_core.store import Store
from tasks import pool

pytestmark = pytest.mark.prefect


@pytest.fixture(autouse=True)
def running(monkeypatch):
    """A process in which nothing was stopped yet, and that asks again soon."""
    monkeypatch.setattr(workers, "_stopped", threading.Event())
    monkeypatch.setattr(pool, "POLL", 0.05)


@pytest.fixture
def api():
    """The client of a server that answers with these statuses, one a request; and how often it was asked."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    statuses, asked = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(statuses.pop(0))
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/api"
        with temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}), get_client(sync_client=True) as client:
            yield client, statuses, asked
        server.shutdown()


def test_what_has_too_much_to_do_is_asked_again(api):
    client, statuses, asked = api
    statuses += [503, 500, 200]
    assert pool._answered(client.hello, begun=False).status_code == 200
    assert len(asked) == 3


def test_what_refuses_is_asked_once(api):
    from prefect.exceptions import PrefectHTTPStatusError

    client, statuses, asked = api
    statuses += [422, 200]
    with pytest.raises(PrefectHTTPStatusError, match="422"):
        pool._answered(client.hello, begun=False)
    assert len(asked) == 1


def test_a_study_that_is_stopped_asks_no_more(api):
    client, statuses, asked = api
    statuses += [503] * 1000

    def ask():
        if len(asked) == 2:
            workers._stopped.set()
        return client.hello()

    with pytest.raises(workers.StoppedError):
        pool._answered(ask, begun=True)
    assert len(asked) == 3


def test_what_is_away_is_asked_again_only_about_what_has_begun():
    away, there = httpx.ConnectError("refused"), iter([True])

    def ask():
        if next(there, False):
            raise away
        return "here"

    assert pool._answered(ask, begun=True) == "here"
    there = iter([True])
    with pytest.raises(httpx.ConnectError):
        pool._answered(ask, begun=False)


@pytest.mark.parametrize("holds", [False, True])
def test_a_run_has_longer_to_take_its_lease_than_to_be_without_it(monkeypatch, tmp_path, holds):
    from prefect.client.schemas.objects import FlowRun
    from prefect.states import Running

    class Client:
        """Of a server on which the run stays Running until it is said to have crashed."""

        state = Running()

        def read_flow_run(self, run):
            return FlowRun(id=run, flow_id=uuid4(), state=self.state)

        def set_flow_run_state(self, run, state, force):
            self.state = state

    monkeypatch.setattr(pool, "SILENT", 0.3)
    monkeypatch.setattr(pool, "BEGINS", 5.0)
    store, run, client = Store(tmp_path), uuid4(), Client()
    store.prepare()

    def hold():
        with store.leased(pool.lease_of(str(run))):
            time.sleep(0.6)

    started = time.monotonic()
    if holds:
        threading.Thread(target=hold).start()
    assert pool._joined(client, run, store).is_crashed()
    assert client.state.is_crashed()
    seconds = time.monotonic() - started
    assert 0.6 < seconds < 5 if holds else seconds > 5
