"""What made a study's numbers: settings that differ between its methods, versions, machines, cost, hypotheses touched."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import duckdb

from retain_core import __version__
from retain_core.errors import RetainError
from retain_core.hypotheses.ledger import Entry, entry
from retain_core.hypotheses.studies import Question, questions
from retain_core.report.parts import Row
from retain_core.report.results import Results
from retain_core.report.words import counted
from retain_core.store import Store
from retain_core.study import Study

_SETTINGS = "SELECT DISTINCT CAST(settings AS VARCHAR) FROM evaluations WHERE study = ? ORDER BY 1"
_SHARED = """
SELECT DISTINCT o.study FROM arms o JOIN arms s ON s.artifact = o.artifact AND s.status = 'done' AND o.status = 'done'
WHERE s.study = ? AND s.role = 'method' AND o.role = 'method'
"""


def differing_settings(results: Results) -> tuple[list[str], list[Row]]:
    """Dials whose value is not the same for all methods, and a row per method with only those."""
    configs: dict[str, dict[str, set[str]]] = {}
    for arm in results.arms:
        if arm["role"] != "method":
            continue
        own = configs.setdefault(arm["method"], {})
        for key, value in json.loads(arm["config"] or "{}").items():
            own.setdefault(key, set()).add(value if isinstance(value, str) else json.dumps(value))
    keys = sorted({key for own in configs.values() for key in own})
    told = {key: {tuple(sorted(own.get(key, ()))) for own in configs.values()} for key in keys}
    differing = [key for key in keys if len(told[key]) > 1]
    ordered = sorted(configs, key=lambda method: results.places.get(method, 99))
    return differing, [
        {"method": method, **{key: " / ".join(sorted(configs[method].get(key, ()))) for key in differing}} for method in ordered
    ]


def provenance(con: duckdb.DuckDBPyConnection, results: Results) -> list[tuple[str, str]]:
    """What a reader needs to judge or repeat the study; what was recorded, not what this machine has now."""
    done = [arm for arm in results.arms if arm["status"] == "done"]
    settings = [json.loads(text) for (text,) in con.execute(_SETTINGS, [results.study]).fetchall() if text]
    budget, revision = results.spec.get("budget"), results.revision
    tokens = sum(arm["tokens_trained"] or 0 for arm in done), sum(arm["tokens_generated"] or 0 for arm in done)
    arms = len(results.arms)
    return [
        ("declared", f"{revision['declared_at']} UTC, revision {revision['revision']}"),
        ("spec hash", revision["spec_hash"]),
        ("code that trained", _commits(done)),
        ("code of this page", f"retain {__version__}"),
        ("packages of the evaluations", _versions(settings)),
        ("evaluated with", _told(settings, ("backend", "dtype", "decoding", "batch_size", "chat_template", "threads"))),
        ("platform", ", ".join(sorted({s["platform"] for s in settings if "platform" in s})) or "not recorded"),
        ("trained on", ", ".join(sorted({arm["hardware"] for arm in done if arm["hardware"]})) or "not recorded"),
        ("page written on", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"),
        (
            "budget per target" if results.spec.get("then") else "budget per arm",
            f"{budget['updates']} updates of {budget['sequences_per_update']} sequences" if budget else "none",
        ),
        ("arms", f"{len(done)} of {counted(arms, 'arm')} done"),
        ("cost", f"{sum(arm['seconds'] or 0 for arm in done):,.0f} s of training in all, {tokens[0]:,} tokens trained on, "
                 f"{tokens[1]:,} tokens generated"),
        ("seeds", ", ".join(map(str, results.spec["seeds"])) or "none"),
        *_from_the_hub(results.spec),
    ]  # fmt: skip


def _from_the_hub(spec: dict[str, Any]) -> list[tuple[str, str]]:
    """Whether models and data are pinned, and what became of the rows of public data; nothing for a study that names none."""
    try:
        study = Study.model_validate(spec)
    except ValueError:  # an imported study, or one of an older retain
        return []
    if not study.names_the_hub():
        return []
    loose = study.unpinned()
    pinned = (
        f"no: {', '.join(loose)} may be another commit tomorrow" if loose else "yes: every model and data set by its commit"
    )
    return [("pinned", pinned), *(("public data", line) for line in study.own.public_lines())]


def touched(con: duckdb.DuckDBPyConnection, study: str, artifacts: Path) -> list[Entry]:
    """Entries of the hypothesis ledger that rest on an arm of this study, so that nobody counts one result twice."""
    shared = {name for (name,) in con.execute(_SHARED, [study]).fetchall()} | {study}
    store = Store(artifacts, read_only=True)
    found = [question for question in questions() if question.study["study"] in shared]
    entries = [_entry(con, store, artifacts.parent, question) for question in found]
    return [told for told in entries if told.state != "not run"]


def _entry(con: duckdb.DuckDBPyConnection, store: Store, home: Path, question: Question) -> Entry:
    try:
        return entry(con, store, home, question)
    except RetainError as error:
        return Entry(question, "incomplete", note=str(error))


def _commits(arms: list[dict[str, Any]]) -> str:
    known = sorted({arm["git_sha"] for arm in arms if arm["git_sha"]})
    return f"{'commit' if len(known) == 1 else 'commits'} {', '.join(known)}" if known else "unknown"


def _versions(settings: list[dict[str, Any]]) -> str:
    found = {f"{name} {version}" for s in settings for name, version in (s.get("versions") or {}).items()}
    return ", ".join(sorted(found)) or "not recorded"


def _told(settings: list[dict[str, Any]], keys: tuple[str, ...]) -> str:
    told = {key: sorted({str(s[key]) for s in settings if s.get(key) is not None}) for key in keys}
    return "; ".join(f"{key.replace('_', ' ')} {', '.join(values)}" for key, values in told.items() if values) or "not recorded"
