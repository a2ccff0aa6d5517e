"""The body of `retain run`: a study that is done needs no server, any other runs as a Prefect flow."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from retain_core import run, workers
from retain_core.cross import StudyFile, load_studies, one_study
from retain_core.errors import ArmsFailedError, InputError, RetainError
from retain_core.gate import watch as gate
from retain_core.gate.watch_file import load_watch
from retain_core.remote import open_store
from retain_core.report.summary import closing_lines, crossed_lines
from retain_core.revisions import more_seeds, revisions_of
from retain_core.settings import Settings, settings
from retain_core.store import write_atomically
from retain_core.study import Study
from retain_core.supervise import end

STOPPED = 130
"""Exit code after Ctrl-C."""


def run_studies(paths: list[Path]) -> int:
    """Run study files to their ends and print the closing lines of each. Returns the highest exit code.

    Studies share arms, so all are declared before any arm is trained: else a later one would be declared after its own
    arms. A file that fails does not stop the others.
    """
    files = [load_studies(path) for path in paths]
    if len(files) == 1:
        return _run(files[0])
    run.declare_all([study for file in files for study in file.studies], settings())
    codes = []
    for file in files:
        try:
            codes.append(_run(file))
        except RetainError as error:
            print(f"retain: {file.name}: {error}", file=sys.stderr)
            codes.append(error.exit_code)
        if codes[-1] == STOPPED:
            break
    return max(codes)


def extend_study(name: str, count: int) -> int:
    """Add seeds to a study that was run, as another look at its contrast, and run them. Returns the exit code."""
    config = settings()
    current = next((r for r in revisions_of(open_store(config, read_only=True), name) if r.current), None)
    if current is None:
        raise InputError(f"no study {name!r} was run in {config.home}")
    if count < 1:
        raise InputError("--seeds says how many seeds are added: at least 1")
    study = more_seeds(Study.model_validate(current.spec), count)
    code = _run(one_study(study))
    print(f"\nto keep the seeds, say `seeds: [{', '.join(map(str, study.seeds))}]` in the study file", flush=True)
    return code


def _run(file: StudyFile) -> int:
    started = time.perf_counter()
    config = settings()
    try:
        cached = tuple(study.study for study in file.studies if _refresh(study, config))
        done = len(cached) == len(file.studies)
        failure = "" if done else _run_flow(file, cached, config)
        if done and file.crossed:
            run.freeze_predictions(file, config)
    except KeyboardInterrupt:
        _say_stopped()
        return STOPPED
    if config.warehouse.is_file():
        print(crossed_lines(config, file) if file.crossed else closing_lines(config, file.name))
    print("\n" + _wall_times(config.home / "logs" / file.name / "wall_time.json", time.perf_counter() - started, done))
    if failure:
        print(f"retain: {failure}", file=sys.stderr)
    return 1 if failure else 0


def _refresh(study: Study, config: Settings) -> bool:
    """Bring warehouse, MLflow and report up to date when nothing has to be trained or evaluated."""
    with run.open_study(study, config) as running:
        for sentence in [*running.store.damaged, *study.own.notes()]:
            print(f"retain: {sentence}", file=sys.stderr)
        if not running.plan.done:
            to_do = len(running.missing_arms)
            print(f"{study.study}: {to_do} of {len(running.plan.arms)} arms to run", flush=True)
            return False
        print(f"{study.study}: nothing to train or evaluate, every result is verified")
        run.publish(running, errors={})
        return True


def watch_once(path: Path) -> int:
    """The body of `retain watch`; a look that finds nothing new needs no server. Returns the exit code."""
    file, config = load_watch(path), settings()
    study = file.load_study()
    seen, problem = gate.look(file, study, config), ""
    if gate.unjudged(seen):
        new = {one.found for one in seen if one.told is None}
        prefect_settings(config)
        from flows.watch import watch

        try:
            watch(str(path.absolute()))
        except ArmsFailedError as error:
            problem = str(error)
        seen = [replace(one, new=one.found in new) for one in gate.look(file, study, config)]
    for one in seen:
        print(one.line)
    if not seen:
        print("no checkpoint is there yet")
    if problem:
        raise RetainError(problem)
    return gate.exit_code(seen)


def prefect_settings(config: Settings) -> None:
    """Settle how Prefect behaves in this process, before it is imported: quiet, and with time for its temporary server."""
    defaults = {
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(config.prefect_api_wait),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",  # of its own threads, which miss the server when a run is stopped
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    if "PREFECT_API_URL" not in os.environ:
        signal.signal(signal.SIGINT, _stop_with_temporary_server)


def _run_flow(file: StudyFile, cached: tuple[str, ...], config: Settings) -> str:
    """Run the flow; without PREFECT_API_URL Prefect starts a temporary server. Returns what failed and why."""
    prefect_settings(config)
    workers.warm_up(file.studies[0].execution.threads_per_arm)
    from flows.study import run_file

    try:
        run_file(file, cached)
    except ArmsFailedError as error:
        return str(error)
    return ""


def _stop_with_temporary_server(*_: object) -> None:
    """Ctrl-C also reaches Prefect's temporary server; telling a dead server of the end would take minutes."""
    import psutil

    try:
        end(psutil.Process().children(recursive=True), grace=10)
        _say_stopped()
        sys.stderr.flush()
    finally:
        os._exit(STOPPED)


def _wall_times(record: Path, seconds: float, cached: bool) -> str:
    """This run's wall time beside that of the last run that had something to compute, kept in `record`."""
    if not cached:
        write_atomically(record, json.dumps({"seconds": seconds}))
        return f"wall time {seconds:.1f} s"
    earlier = json.loads(record.read_text(encoding="utf-8"))["seconds"] if record.is_file() else None
    computed = "" if earlier is None else f"; the last run that computed something took {earlier:.1f} s"
    return f"wall time {seconds:.1f} s{computed}"


def _say_stopped() -> None:
    print("retain: stopped; `retain run` again goes on from here", file=sys.stderr)
