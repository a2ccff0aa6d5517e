"""The watch as a flow on a real Prefect server: an event, an artifact, a webhook, and nothing the second time."""

import json
import shutil
import time

import httpx
import pytest

from tests.conftest import ROOT, retain

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(600)]


def asked(server, what, body=None):
    return httpx.post(f"{server}/api/{what}/filter", json=body or {}, timeout=30).raise_for_status().json()


def test_a_new_checkpoint_is_told_of_once(home, tmp_path, smoke_plan, fresh_prefect, webhook):
    address, bodies = webhook
    shutil.copytree(smoke_plan.base_path, tmp_path / "runs" / "night-1")
    file = tmp_path / "watch.yaml"
    file.write_text(
        f"study: {ROOT / 'studies' / 'smoke.yaml'}\nfolder: {{path: runs, settle: 0}}\n"
        "notify: {webhook_env: ALERTS, block: slack-webhook/none, decisions: [ALLOW, REJECT, INCONCLUSIVE]}\n"
    )
    more = {"PREFECT_API_URL": f"{fresh_prefect}/api", "ALERTS": address}
    done = retain("watch", str(file), home=home, **more)
    assert done.returncode in (0, 4), done.stderr
    assert done.stdout.startswith("night-1: ")
    assert "very-secret-path" not in done.stdout + done.stderr
    word = {0: "ALLOW", 4: "INCONCLUSIVE"}[done.returncode]
    assert [(body["name"], body["decision"]) for body in bodies] == [("night-1", word)]
    mine = {"flows": {"name": {"any_": ["watch"]}}}
    (flow,) = asked(fresh_prefect, "flow_runs", mine)
    assert (flow["state"]["type"], flow["state"]["name"]) == ("COMPLETED", word)
    artifacts = asked(fresh_prefect, "artifacts", mine)
    assert [one["key"] for one in artifacts if one["key"]] == ["watch-smoke"]
    logs = json.dumps(asked(fresh_prefect, "logs", {"logs": {"flow_run_id": {"any_": [flow["id"]]}}}))
    assert "very-secret-path" not in logs

    def events():
        return asked(fresh_prefect, "events", {"filter": {"event": {"prefix": ["retain.gate."]}}})["events"]

    deadline = time.monotonic() + 60
    while not (found := events()):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert [(one["event"], one["resource"]["prefect.resource.id"]) for one in found] == [
        (f"retain.gate.{word.lower()}", "retain.study.smoke")
    ]
    assert found[0]["payload"]["name"] == "night-1"

    again = retain("watch", str(file), home=home, **more)
    assert again.returncode == done.returncode
    assert "(seen before)" in again.stdout
    assert (len(bodies), len(asked(fresh_prefect, "flow_runs", mine))) == (1, 1)
