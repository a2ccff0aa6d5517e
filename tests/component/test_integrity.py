"""What is damaged is found before it is used and made again; a load is there whole or not at all; a full disk loses nothing."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from retain_core.errors import FULL, RetainError, disk_is_full
from retain_core.plan import plan_study
from retain_core.revisions import revisions_of
from retain_core.run import load_warehouse, open_study, run_all
from retain_core.store import MANIFEST, Store
from retain_core.study_file import load_study
from retain_core.warehouse.contents import contents_of
from retain_core.warehouse.load import load_contents
from tests.component.test_warehouse import content
from tests.conftest import ROOT, settings_at, tree


def everything(path: Path) -> dict[str, list]:
    """Every table of a warehouse."""
    with duckdb.connect(str(path), read_only=True) as con:
        tables = con.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        return {table: con.execute(f"FROM {table} ORDER BY ALL").fetchall() for (table,) in tables}


SAME = ("forgetting", "gain_drop", "method_summary", "flips", "samples", "scores", "divergences", "contrasts", "noise_floor")


def test_truncated_and_flipped_files_are_set_aside_and_recomputed(home, smoke_study):
    """One of each at once: a truncated Parquet file, one with a flipped bit, a cut manifest, one that says something else."""
    rng = random.Random(0)
    before = content(home / "warehouse.duckdb")
    folders = sorted((home / "artifacts" / "evaluation").iterdir())[::7][:3]
    divergence = next(iter(sorted((home / "artifacts" / "divergence").iterdir())))
    right = {p: p.read_bytes() for folder in (*folders, divergence) for p in folder.iterdir() if p.suffix == ".parquet"}
    os.truncate(folders[0] / "answers.parquet", 1000)
    scores = bytearray((folders[1] / "scores.parquet").read_bytes())
    scores[rng.randrange(len(scores))] ^= 1 << rng.randrange(8)
    (folders[1] / "scores.parquet").write_bytes(bytes(scores))
    os.truncate(folders[2] / MANIFEST, 300)
    manifest = divergence / MANIFEST
    manifest.write_text(manifest.read_text().replace('"kind": "divergence"', '"kind": "another"'))
    with open_study(load_study(smoke_study), settings_at(home)) as running:
        found = "\n".join(running.store.damaged)
        for folder, what in zip(folders, ("answers.parquet", "scores.parquet", "its manifest cannot be read"), strict=True):
            assert f"evaluation/{folder.name}: {what}" in found
        assert f"divergence/{divergence.name}: its manifest does not match its own seal; set aside as" in found
        assert found.count("will be recomputed") == 4
        assert not running.plan.done
        assert run_all(running) == {}
    assert {p: p.read_bytes() for p in right} == right
    after = content(home / "warehouse.duckdb")
    assert {view: after[view] for view in SAME} == {view: before[view] for view in SAME}


KILL = """
import os, signal, sys
from pathlib import Path
from retain_core.plan import plan_study
from retain_core.revisions import revisions_of
from retain_core.store import Store
from retain_core.study_file import load_study
from retain_core.warehouse import load
from retain_core.warehouse.contents import contents_of

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

step, home, warehouse, study = sys.argv[1:]
setattr(load, step, die)
store = Store(Path(home) / "artifacts", read_only=True)
load.load_contents(Path(warehouse), contents_of(plan_study(load_study(study), store), revisions_of(store, "smoke"), {}))
"""


@pytest.mark.parametrize("step", ["_add_divergences", "store_comparisons", "store_checks"])
def test_a_loader_that_is_killed_in_the_middle_leaves_the_load_absent(finished_home, smoke_study, tmp_path, step):
    store, warehouse = Store(finished_home / "artifacts", read_only=True), tmp_path / "w.duckdb"
    done = subprocess.run(
        [sys.executable, "-c", KILL, step, str(finished_home), str(warehouse), str(smoke_study)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == -9, done.stderr
    found = everything(warehouse)
    assert [table for table, rows in found.items() if rows and not table.startswith(("published", "schema_version"))] == []
    contents = contents_of(plan_study(load_study(smoke_study), store), revisions_of(store, "smoke"), {})
    assert load_contents(warehouse, contents).evaluations == 39
    load_contents(tmp_path / "fresh.duckdb", contents)
    assert everything(warehouse) == everything(tmp_path / "fresh.duckdb")


def test_a_damaged_warehouse_is_said_to_be_so_or_is_built_anew(home, smoke_study):
    warehouse = home / "warehouse.duckdb"
    whole = warehouse.read_bytes()
    rng = random.Random(1)
    for share in (0.001, 0.3, 0.6, 0.9):
        spoiled = bytearray(whole)
        for _ in range(200):
            spoiled[int(share * len(whole)) + rng.randrange(10_000)] ^= 1 << rng.randrange(8)
        warehouse.write_bytes(bytes(spoiled))
        try:
            with open_study(load_study(smoke_study), settings_at(home)) as running:
                load_warehouse(running, {})
        except RetainError as error:
            assert "delete it and run again" in str(error)  # noqa: PT017
    os.truncate(warehouse, 5000)
    with open_study(load_study(smoke_study), settings_at(home)) as running:
        assert load_warehouse(running, {}) == 39


# A full disk


@pytest.fixture
def small(tmp_path):
    """Mounts a small file system of its own; gives a function that fills it up but for some bytes."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this machine mounts no tmpfs: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, but: int) -> Path:
    """Leave so many bytes free."""
    filler = folder / "filler"
    filler.unlink(missing_ok=True)
    filler.write_bytes(b"x" * (shutil.disk_usage(folder).free - but))
    return filler


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_the_study_goes_on_when_there_is_room(small, finished_home, smoke_study, tmp_path):
    home = small / "home"
    shutil.copytree(finished_home, home)
    changed = tmp_path / "smoke.yaml"
    changed.write_text(smoke_study.read_text().replace("[sft, grpo]", "[sft, grpo, sft_in_style]"))
    before = tree(home / "artifacts")
    filler = fill(small, but=300_000)
    with open_study(load_study(changed), settings_at(home)) as running:
        with pytest.raises(Exception, match=r"full|No space left") as caught:
            run_all(running)
        assert disk_is_full(caught.value)
    now = tree(home / "artifacts")
    assert {name: body for name, body in now.items() if name in before and "studies/" not in name} == {
        name: body for name, body in before.items() if "studies/" not in name
    }
    assert list((home / "artifacts" / ".drafts").iterdir()) == []
    assert {p.name for p in home.rglob(".*") if p.is_file()} <= {".lock", ".logged-smoke.json"}
    filler.unlink()
    with open_study(load_study(changed), settings_at(home)) as running:
        assert running.store.damaged == []
        assert running.missing_arms == ["smoke/sft_in_style-lr1e-3-s0"]
        assert run_all(running) == {}
        running.replan()
        assert running.plan.done


def test_a_full_disk_leaves_the_warehouse_as_it_was(small, finished_home, smoke_study):
    store = Store(finished_home / "artifacts", read_only=True)
    contents = contents_of(plan_study(load_study(smoke_study), store), revisions_of(store, "smoke"), {})
    warehouse = small / "w.duckdb"
    load_contents(warehouse, contents)
    before = everything(warehouse)
    other = contents_of(plan_study(load_study(smoke_study), store), revisions_of(store, "smoke"), {})
    filler = fill(small, but=100_000)
    with duckdb.connect(str(warehouse), read_only=True) as con:
        con.execute("SELECT 1")
    other.evaluations.clear()
    for table in other.tables:
        other.tables[table] = other.tables[table] * (20_000 if table == "checkpoints" else 1)
    with pytest.raises(RetainError) as caught:
        load_contents(warehouse, other)
    assert str(caught.value) == FULL
    filler.unlink()
    assert everything(warehouse) == before
    assert load_contents(warehouse, contents).evaluations == 0


def test_what_a_full_disk_looks_like():
    def wrapped():
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise ValueError("the library's own words") from error

    with pytest.raises(ValueError, match="own words") as caught:
        wrapped()
    assert disk_is_full(caught.value)
    assert disk_is_full(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert not disk_is_full(OSError(2, "No such file or directory"))
