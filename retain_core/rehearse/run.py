"""`retain rehearse STUDY`: the whole study once through, small, without the hub.

Replaced are the models (same architecture, template and stop token; tiny), the data (ours, in the hub's columns), the reward
(a fixed share accepted by hash, while the real verifier reads every answer) and what the judge says. All else is the code
that runs the study: reading and sealing, planning, training, evaluation, judging, warehouse, page.

Owns a home of its own, with `rehearsal/` in it: the small models, the data, the stand-ins of the verifiers.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from retain_core import workers
from retain_core.cross import load_studies
from retain_core.errors import ArmsFailedError, InputError, RetainError
from retain_core.own.study import seal_study
from retain_core.public.catalogue import PUBLIC
from retain_core.public.language import has_tables, make_tables
from retain_core.rehearse import data, reward
from retain_core.rehearse.checks import check_verifier
from retain_core.rehearse.cut import cut_target
from retain_core.rehearse.judge import check_judge, wanted_judge, with_judge
from retain_core.rehearse.model_job import Wanted, build_models
from retain_core.rehearse.shrink import shrunk
from retain_core.settings import Settings, settings
from retain_core.study import Study

Say = Callable[[str], Any]
SENTENCES = "We went to the river and saw a heron. It flew away. Was it quiet? It was! " * 20
"""What sentence tables are learned from where the machine has none."""


def rehearse(path: Path, home: Path | None, say: Say, rows: Path | None = None) -> None:
    """Rehearse a study file, in a home that is removed when all went well unless it is named.

    `rows` is a folder of raw rows (<data set>/<split>.jsonl) to take instead of made-up ones. Raises InputError where the
    study, a model's files or the data are wrong, RetainError where a step or an arm failed.
    """
    started = time.perf_counter()
    place = home.absolute() if home else Path(tempfile.mkdtemp(prefix="retain-rehearsal-"))
    try:
        with at_home(place), workers.kept():
            workers.warm_up(1)
            study = _one(path)
            _rehearse(study, path.absolute().parent, place, rows, say)
    except BaseException:
        if home is None and not (place / "logs").is_dir():
            shutil.rmtree(place, ignore_errors=True)
        elif home is None:
            say(f"what was made until then is kept in {place}")
        raise
    if home is None:
        shutil.rmtree(place, ignore_errors=True)
    say(
        f"{study.study}: rehearsed in {time.perf_counter() - started:.0f} s, every step and arm went through"
        + (f"; everything is in {place}" if home else "")
    )
    say("not shown by this: whether it fits your card (`retain plan`), how fast it is, and anything that a score says")


def _one(path: Path) -> Study:
    file = load_studies(path, fetched=False)
    if file.crossed:
        raise InputError(f"{path} crosses {len(file.studies)} studies; rehearse the file of one")
    return file.studies[0]


@contextlib.contextmanager
def at_home(home: Path) -> Iterator[None]:
    """Within it this process and those that it starts work in a home of their own, and none of the user's settings holds."""
    before = dict(os.environ)
    nltk = sys.modules.get("nltk")  # slow to import, and not of use to every study
    tables = list(nltk.data.path) if nltk else []
    for name in [name for name in before if name.startswith("RETAIN_")]:
        del os.environ[name]
    os.environ["RETAIN_HOME"] = str(home)
    # Sentence tables that are made here are found by the processes that were started before.
    os.environ["NLTK_DATA"] = os.pathsep.join(filter(None, [str(tables_of(home)), before.get("NLTK_DATA")]))
    settings.cache_clear()
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
        if nltk:
            nltk.data.path[:] = tables
        settings.cache_clear()


def tables_of(home: Path) -> Path:
    """Where a rehearsal puts nltk's sentence tables."""
    return home / "rehearsal" / "nltk_data"


def _rehearse(study: Study, beside: Path, home: Path, rows: Path | None, say: Say) -> None:
    folder = home / "rehearsal"
    folder.mkdir(parents=True, exist_ok=True)
    made = "rlvr_ifeval" in study.public_names() and not has_tables()
    if made:
        make_tables(tables_of(home), SENTENCES)
    small, lines = shrunk(study)
    small = with_judge(_with_models(data.sized(small), folder), folder)
    say(f"REHEARSAL of {study.study}: no number of it means anything")
    if made:
        say("  nltk's sentence tables: made here from a few sentences, for the machine has none")
    for line in [*lines, *data.write_data(small, home, folder, rows)]:
        say(f"  {line}")
    small, texts, taught = cut_target(small, study, folder)
    texts, taught = [*texts, *data.texts(small, home)], [*taught, *data.taught(small, home)]
    wanted = [*_wanted(study, folder, texts, taught), *wanted_judge(study, folder, texts, taught)]
    own = seal_study(small, beside)
    with ThreadPoolExecutor(max_workers=1) as pool:
        built = pool.submit(build_models, wanted, folder)
        importlib.import_module("transformers.configuration_utils")  # planning wants it; here a core has nothing to do
        for line in built.result():
            say(f"  {line}")
    small = small.model_copy(update={"own": own})
    small, lines = data.with_suite(small, folder)
    for line in [*lines, *check_judge(small)]:
        say(f"  {line}")
    _run(_with_reward(small, folder, say), home, folder, say)


def _wanted(study: Study, folder: Path, texts: list[str], taught: list[tuple[str, str]]) -> list[Wanted]:
    named = [("base", study.base.model, study.base.revision)]
    named += [(f"method {m.label}", str(m.model), m.revision) for m in study.methods if m.algorithm == "external"]
    return [
        Wanted(
            what=what, model=model, revision=revision, folder=str(folder / "models" / _slug(what)), texts=texts, taught=taught
        )
        for what, model, revision in named
    ]


def _slug(what: str) -> str:
    return what.replace(" ", "-")


def _with_models(small: Study, folder: Path) -> Study:
    models = folder / "models"
    methods = [
        m.model_copy(update={"model": str(models / _slug(f"method {m.label}")), "revision": None})
        if m.algorithm == "external"
        else m
        for m in small.methods
    ]
    base = small.base.model_copy(update={"model": str(models / "base"), "revision": None})
    return small.model_copy(update={"base": base, "methods": tuple(methods)})


def _with_reward(small: Study, folder: Path, say: Say) -> Study:
    """The study with a stand-in for every verifier, which have been asked right and wrong answers."""
    target, public = small.own.target, small.own.public
    changed: dict[str, Any] = {
        "public": {
            name: own if PUBLIC[name].judged else own.model_copy(update={"verifier": reward.stand_in(own.verifier, folder)})
            for name, own in public.items()
        }
    }
    if target is not None:
        if target.public is None:
            say(f"  {check_verifier(small.target, target)}")
        changed["target"] = target.model_copy(update={"verifier": reward.stand_in(target.verifier, folder)})
    say(f"  reward: {reward.SHARE} % of the answers are accepted by hash; the real verifiers read every one of them")
    return small.model_copy(update={"own": small.own.model_copy(update=changed)})


def _run(small: Study, home: Path, folder: Path, say: Say) -> None:
    from retain_core.run import log_tracking, open_study, run_all

    config = Settings(home=home, mlflow_uri=None, artifacts_at=None, snapshot=None, alert_url=None, alert_block=None)
    with open_study(small, config) as running:
        names = running.missing_arms
        say(f"  {len(names)} arms, {len(small.benchmarks())} benchmarks: training and evaluating")
        errors = run_all(running)
        _refuse_failures(errors, len(names))
        running.replan()
        if not running.plan.done:
            raise RetainError("the study is not complete though no arm failed; run it again with --home to look into it")
        if problem := log_tracking(running):
            raise RetainError(problem)
    page = config.reports / small.study / "index.html"
    if not page.is_file():
        raise RetainError(f"the page {page} was not written")
    seen = reward.read(folder)
    if not sum(seen.values()):
        raise RetainError("no answer reached a verifier")
    count = sum(seen.values())
    say(f"  verifiers read {count:,} answers: {seen['right']} right, {seen['wrong']} wrong, failed on {seen['failed']}")
    if seen["failed"]:
        raise RetainError(f"a verifier failed on {seen['failed']} of {count} answers; it must say right or wrong of any text")


def _refuse_failures(errors: dict[str, str], of: int) -> None:
    """Raise ArmsFailedError with every sentence once, and how many arms said it."""
    said: dict[str, list[str]] = {}
    for arm, message in errors.items():
        said.setdefault(message.split(" (log: ")[0], []).append(arm)
    if said:
        sentences = "; ".join(f"{message} ({', '.join(arms)})" for message, arms in said.items())
        raise ArmsFailedError(f"{len(errors)} of {of} arms failed: {sentences}")
