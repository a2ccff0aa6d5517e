"""What may be removed from a home, what may not, and how much disk a study was said to need."""

import json
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from retain_core.commands import gc_text, plan_text
from retain_core.housekeeping import leftovers, remove_leftovers
from retain_core.lease import EXPIRES_SECONDS, Lease
from retain_core.plan import plan_study
from retain_core.run import load_warehouse, open_study
from retain_core.store import Store, lock_home
from retain_core.study import Study
from retain_core.study_file import load_study
from retain_core.warehouse.query import query
from tests.conftest import run_plain, settings_at, tree


@pytest.fixture
def edited(smoke_study, tmp_path):
    """Writes the smoke study with something replaced or added."""

    def edit(**changes: str):
        text = smoke_study.read_text()
        for key, value in changes.items():
            text = re.sub(rf"^{key}: .*\n", "", text, flags=re.MULTILINE) + f"{key}: {value}\n"
        path = tmp_path / "smoke.yaml"
        path.write_text(text)
        return path

    return edit


def declare(study_file, home):
    with open_study(load_study(study_file), settings_at(home)) as running:
        return running.plan


def kinds(store):
    return sorted((one.what, one.why) for one in leftovers(store).found)


def test_a_finished_home_has_nothing_to_remove(finished_home, monkeypatch):
    monkeypatch.setattr("retain_core.commands.settings", lambda: settings_at(finished_home))
    before = tree(finished_home / "artifacts")
    assert gc_text(delete=False, every=False) == f"nothing in {finished_home} can be removed"
    assert tree(finished_home / "artifacts") == before


def test_weights_that_keep_no_longer_keeps_go_and_the_arms_stay_done(home, edited):
    store = Store(home / "artifacts")
    assert declare(edited(keep="none"), home).done
    assert kinds(store) == [("weights", "`keep` does not keep it")] * 3
    answers = tree(home / "artifacts" / "evaluation")
    removed = remove_leftovers(store, home)
    assert sum(one.bytes for one in removed.found) > 1_000_000
    assert not store.keys("weights")
    assert tree(home / "artifacts" / "evaluation") == answers
    with open_study(load_study(edited(keep="none")), settings_at(home)) as running:
        assert running.plan.done
        assert load_warehouse(running, {}) == 0
    kept = query(home / "warehouse.duckdb", "SELECT DISTINCT kept FROM checkpoints WHERE step > 0", "csv")
    assert kept == "kept\nFalse"
    again = declare(edited(keep="last"), home)
    assert [arm.to_train for arm in again.arms] == [True] * 3


def test_keep_none_frees_the_weights_and_is_not_trained_again(home, edited):
    store = Store(home / "artifacts")
    before = store.keys("weights")
    changed = edited(keep="none", seeds="[1]", methods="[sft]", controls="[]", primary="null")
    assert run_plain(changed, home) == {}
    assert len(store.keys("arm")) == 4
    assert store.keys("weights") == before
    times = {p: p.stat().st_mtime_ns for p in (home / "artifacts" / "arm").rglob("*")}
    assert declare(changed, home).done
    assert run_plain(changed, home) == {}
    assert {p: p.stat().st_mtime_ns for p in (home / "artifacts" / "arm").rglob("*")} == times


def test_what_an_earlier_text_refers_to_stays(home, edited):
    declare(edited(methods="[sft]", primary="null"), home)
    assert kinds(Store(home / "artifacts")) == []


def test_what_no_text_refers_to_goes_and_only_that(home):
    store = Store(home / "artifacts")
    before = tree(home / "artifacts")
    for kind in ("evaluation", "weights", "arm", "summary", "something_new"):
        with store.create(kind, "0" * 32, {"a": 1}) as draft:
            (draft.path / "file").write_text("x" * 100)
    done = store.keys("arm")[1]
    for path in (".drafts/weights-abc-7", ".quarantine/arm-abc-0", f".resume/arm-{done}", ".resume/arm-gone"):
        (store.root / path).mkdir(parents=True)
        (store.root / path / "file").write_text("y" * 50)
    assert kinds(store) == [
        ("arm", "no study refers to it"), ("damaged artifact", "was set aside and made again"),
        ("draft", "its writer ended before it was published"), ("evaluation", "no study refers to it"),
        ("resume state", "no study refers to it"), ("resume state", "the arm is finished"),
        ("weights", "no study refers to it"),
    ]  # fmt: skip
    remove_leftovers(store, home)
    assert kinds(store) == []
    kept = {name: body for name, body in tree(home / "artifacts").items() if "0" * 32 not in name}
    assert kept == before
    assert store.find("summary", "0" * 32)
    assert store.find("something_new", "0" * 32)


def test_nothing_that_is_leased_is_removed(home):
    store = Store(home / "artifacts")
    with store.create("arm", "1" * 32, {"a": 1}) as draft:
        (draft.path / "file").write_text("x")
    (store.root / ".resume" / f"arm-{'2' * 32}").mkdir(parents=True)
    (store.root / ".drafts" / "arm-x").mkdir()
    leases = store.root / ".leases"
    leases.mkdir(exist_ok=True)
    for key in ("1" * 32, "2" * 32):
        assert Lease(leases, f"arm-{key}").take() is None
    assert kinds(store) == []
    remove_leftovers(store, home)
    assert store.find("arm", "1" * 32)
    assert (store.root / ".drafts" / "arm-x").is_dir()
    for file in leases.glob("*.json"):
        gone = {"token": "of another", "renewed_at": time.time() - EXPIRES_SECONDS - 1}
        file.write_text(json.dumps(json.loads(file.read_text()) | gone))
    assert [what for what, _ in kinds(store)] == ["arm", "draft", "lease", "lease", "resume state"]
    remove_leftovers(store, home)
    assert kinds(store) == []
    assert list(leases.glob("*.json")) == []


def test_a_text_that_cannot_be_read_keeps_every_artifact(home, monkeypatch):
    monkeypatch.setattr("retain_core.commands.settings", lambda: settings_at(home))
    store = Store(home / "artifacts")
    declared = store.root / "studies" / "smoke.json"
    declared.write_text(declared.read_text().replace('"sft"', '"of another version"'))
    (store.root / ".drafts" / "old").mkdir()
    before = len(store.keys("evaluation"))
    text = gc_text(delete=True, every=True)
    assert "smoke, revision 1: " in text
    assert len(store.keys("evaluation")) == before
    assert not (store.root / ".drafts" / "old").exists()


def test_nothing_is_removed_while_another_process_writes(home):
    draft = home / "artifacts" / ".drafts" / "old"
    draft.mkdir()
    with ThreadPoolExecutor() as pool:
        with lock_home(home):
            removed = pool.submit(remove_leftovers, Store(home / "artifacts"), home)
            with pytest.raises(TimeoutError):
                removed.result(timeout=1)
            assert draft.exists()
        assert [one.path for one in removed.result(timeout=60).found] == [draft]
    assert not draft.exists()


def test_the_listing_says_size_age_and_what_to_do(home, monkeypatch):
    monkeypatch.setattr("retain_core.commands.settings", lambda: settings_at(home))
    path = home / "artifacts" / ".quarantine" / "arm-abc-0"
    path.mkdir()
    (path / "file").write_bytes(b"x" * 2_500_000)
    os.utime(path, (time.time() - 7200, time.time() - 7200))
    text = gc_text(delete=False, every=True)
    assert re.search(rf"^damaged artifact \| was set aside and made again \| 2.5 MB \| 2 h +\| {path}$", text, re.MULTILINE)
    assert "2.5 MB in all; `retain gc --delete` removes it" in text
    assert path.exists()
    assert "removed 2.5 MB" in gc_text(delete=True, every=False)
    assert not path.exists()


FACTOR = 2
"""By how much the disk that `retain plan` foretells may be off."""


def test_the_disk_that_plan_foretells_is_about_what_a_run_took(finished_home, smoke_study, tmp_path, monkeypatch):
    monkeypatch.setattr("retain_core.commands.settings", lambda: settings_at(tmp_path))
    (line,) = [line for line in plan_text(smoke_study).splitlines() if line.startswith("disk: ")]
    number = re.search(r"about ([\d.]+) MB more when it is done: ([\d.]+) MB weights \(keep: last\), ([\d.]+) MB answers", line)
    total, weights, answers = (float(n) * 1e6 for n in number.groups())

    def taken(*folders):
        return sum(p.stat().st_size for f in folders for p in (finished_home / f).rglob("*") if p.is_file())

    files = sum((finished_home / name).stat().st_size for name in ("warehouse.duckdb", "mlflow.db"))
    for told, real in (
        (weights, taken("artifacts/weights")),
        (answers, taken("artifacts/evaluation")),
        (total, taken("artifacts", "reports", "mlartifacts") + files),
    ):
        assert real / FACTOR < told < real * FACTOR
    monkeypatch.setattr("retain_core.commands.settings", lambda: settings_at(finished_home))
    assert "disk: " not in plan_text(smoke_study)


def test_plan_counts_kept_weights_and_says_when_the_disk_is_too_small(smoke_study, tmp_path):
    from retain_core.disk import disk_bytes, disk_lines

    study, store = load_study(smoke_study), Store(tmp_path / "artifacts")

    def weights(keep):
        plan = plan_study(Study.model_validate({**study.model_dump(), "keep": keep}), store)
        return sum(size for (kind, _), size in disk_bytes(plan).items() if kind == "weights"), plan

    (none, _), (last, _), (every, plan) = map(weights, ("none", "last", "all"))
    assert none == 0
    assert every == 2 * last > 0
    assert "is free, which is too little" in disk_lines([plan], store, 2, free=1_000_000)[-1]
    assert len(disk_lines([plan], store, 2, free=10**12)) == 1
