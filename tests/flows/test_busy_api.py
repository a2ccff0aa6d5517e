"""Prefect's API away or with too much to do while arms are on a pool: it is asked again, and nothing else is."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest

from retain_core import workers
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
