"""What may import what, and what must stay light."""

import ast
import subprocess
import sys

import pytest

from tests.conftest import ROOT

HEAVY = ("torch", "transformers", "trl", "lm_eval", "mlflow", "prefect", "datasets", "pandas", "altair")


def modules_after(statement: str) -> set[str]:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import retain_core",
        "import flows.cli",
        "import retain_core.commands",
        "from retain_core.plan import plan_study",
        "from retain_core.run import open_study",
    ],
)
def test_light_paths_import_nothing_heavy(statement):
    assert not modules_after(statement) & set(HEAVY)


def test_retain_core_never_imports_prefect_flows_or_tasks():
    for path in (ROOT / "retain_core").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {n.split(".")[0] for n in names} & {"prefect", "flows", "tasks"}, path


def test_flows_and_tasks_stay_short():
    for folder in ("flows", "tasks"):
        for path in (ROOT / folder).glob("*.py"):
            assert len(path.read_text().splitlines()) <= 200, path


def test_retain_core_works_where_prefect_is_not_installed():
    block = "import sys; sys.modules['prefect'] = None"
    everything = "import retain_core.preload, retain_core.run, retain_core.tracking, retain_core.report.build"
    assert "retain_core.run" in modules_after(f"{block}; {everything}")
