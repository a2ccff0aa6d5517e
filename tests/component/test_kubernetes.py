"""The shipped job template and image, against prefect-kubernetes' own schema and rendering."""

import asyncio
import json
import re
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
import yaml

from tests.conftest import ROOT

pytest.importorskip("prefect_kubernetes", reason="pip install 'retain[kubernetes]'")
FOLDER = ROOT / "deploy" / "kubernetes"
TEMPLATE = json.loads((FOLDER / "base-job-template.json").read_text())
DEPLOYED = yaml.safe_load((FOLDER / "prefect.yaml").read_text())
VARIABLES = {one["name"]: one["work_pool"]["job_variables"] for one in DEPLOYED["deployments"]}


def rendered(**given):
    """The job that the worker would ask the cluster for."""
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

    # Nothing in the template asks the server for anything, so none has to be there.
    client, values = PrefectClient("http://127.0.0.1:9/api"), {"image": "here/retain:1", **given}
    make = KubernetesWorkerJobConfiguration.from_template_and_values(TEMPLATE, values, client=client)
    with ThreadPoolExecutor(1) as thread:  # another test of this process may have left an event loop in this one
        configuration = thread.submit(asyncio.run, make).result()
    configuration.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="arm"))
    return configuration.job_manifest


def container(job):
    (one,) = job["spec"]["template"]["spec"]["containers"]
    return one


def test_it_is_a_schema_in_which_the_worker_finds_all_that_it_needs():
    from jsonschema import Draft202012Validator
    from prefect_kubernetes.worker import KubernetesWorker

    Draft202012Validator.check_schema(TEMPLATE["variables"])
    default = KubernetesWorker.get_default_base_job_template()
    assert TEMPLATE["job_configuration"].keys() == default["job_configuration"].keys()
    assert default["variables"]["properties"].keys() <= TEMPLATE["variables"]["properties"].keys()
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(TEMPLATE["job_configuration"])))
    assert used == TEMPLATE["variables"]["properties"].keys(), "a variable that nothing uses, or one that nobody can give"


@pytest.mark.parametrize("name", VARIABLES)
def test_the_deployments_give_what_the_template_takes(name):
    from jsonschema import Draft202012Validator

    Draft202012Validator({**TEMPLATE["variables"], "additionalProperties": False}).validate(VARIABLES[name])
    assert all(one["entrypoint"].split(":")[0] in ("flows/arm.py", "flows/study.py") for one in DEPLOYED["deployments"])
    assert all((ROOT / one["entrypoint"].split(":")[0]).is_file() for one in DEPLOYED["deployments"])


def test_a_job_asks_for_its_accelerator_its_nodes_and_its_storage():
    job = rendered(**{**VARIABLES["kubernetes"], "image": "here/retain:1"})
    pod, one = job["spec"]["template"]["spec"], container(job)
    assert one["resources"]["limits"]["nvidia.com/gpu"] == one["resources"]["requests"]["nvidia.com/gpu"] == 1
    assert {"cpu", "memory"} <= one["resources"]["limits"].keys()
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    claims = {volume["name"]: volume.get("persistentVolumeClaim") for volume in pod["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in one["volumeMounts"]}
    assert claims["home"] == {"claimName": "retain-home"}
    assert mounts["home"] == next(e["value"] for e in one["env"] if e["name"] == "RETAIN_HOME")
    assert mounts.keys() == claims.keys()
    assert rendered(gpus=0)["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 0


def test_secrets_are_named_not_held_and_nothing_is_root():
    job = rendered(secret_name="mine", env={"RETAIN_ARTIFACTS": "s3://b/p"})
    pod, one = job["spec"]["template"]["spec"], container(job)
    by_name = {entry["name"]: entry for entry in one["env"]}
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "RETAIN_MLFLOW_URI", "HF_TOKEN"):
        assert "value" not in by_name[name]
        assert by_name[name]["valueFrom"]["secretKeyRef"]["name"] == "mine"
    assert by_name["RETAIN_ARTIFACTS"]["value"] == "s3://b/p"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert one["securityContext"]["allowPrivilegeEscalation"] is False
    assert one["args"], "the worker's own command"


def test_the_image_is_pinned_not_root_and_names_no_index():
    text = (ROOT / "deploy" / "Containerfile").read_text()
    steps = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert "--constraint constraints.txt" in text
    users = [line.split()[1] for line in steps if line.startswith("USER")]
    uid = str(TEMPLATE["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]["securityContext"]["runAsUser"])
    assert users[-1].split(":")[0] == uid
    for line in steps:
        if line.startswith("COPY"):
            *sources, _ = line.split()[1:]
            assert all((ROOT / source).exists() for source in sources), line
    for file in [*FOLDER.iterdir(), ROOT / "deploy" / "Containerfile"]:
        assert not re.search(r"https?://|index-url|pypi", file.read_text(), re.IGNORECASE), file
