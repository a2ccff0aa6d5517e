"""Where two sides of a comparison come from, row by row: what a reader needs to find them again."""

from __future__ import annotations

import json
from typing import Any

import duckdb

from retain_core.compare.settings import Setting
from retain_core.imported.samples import Run

_STUDY = """
    SELECT s.declared_at, s.revision, s.spec_hash, count(a.arm) FILTER (a.status = 'done' AND a.role <> 'base'),
           count(a.arm) FILTER (a.role <> 'base'), list(DISTINCT a.git_sha ORDER BY a.git_sha) FILTER (a.git_sha IS NOT NULL)
    FROM studies s LEFT JOIN arms a USING (study) WHERE s.study = ? AND s.is_current GROUP BY ALL
"""
_CHECKPOINT = """
    SELECT a.study, a.arm, a.artifact, a.created_at, a.git_sha, a.seconds, s.spec_hash
    FROM checkpoints c JOIN arms a USING (arm) JOIN studies s ON s.study = a.study AND s.is_current WHERE c.checkpoint = ?
"""
_VERSIONS = "SELECT DISTINCT CAST(settings AS VARCHAR) FROM evaluations WHERE checkpoint = ? ORDER BY 1"


def study_origin(con: duckdb.DuckDBPyConnection, a: str, b: str) -> tuple[Setting, ...]:
    """Of two studies."""

    def told(study: str) -> dict[str, str]:
        row = con.execute(_STUDY, [study]).fetchone()
        assert row is not None
        declared, revision, spec_hash, done, arms, commits = row
        return {
            "study": study, "declared": f"{declared} UTC, revision {revision}", "spec hash": spec_hash,
            "arms": f"{done} of {arms} done", "code that trained": _commits(commits or []),
            "packages of the evaluations": _packages(con, f"{study}/base"),
        }  # fmt: skip

    return _beside(told(a), told(b))


def checkpoint_origin(con: duckdb.DuckDBPyConnection, a: str, b: str) -> tuple[Setting, ...]:
    """Of two checkpoints of the home."""

    def told(checkpoint: str) -> dict[str, str]:
        row = con.execute(_CHECKPOINT, [checkpoint]).fetchone()
        assert row is not None
        study, arm, artifact, created, commit, seconds, spec_hash = row
        return {
            "checkpoint": checkpoint, "arm": arm, "study": study, "spec hash of the study": spec_hash,
            "artifact": artifact or "-", "made": f"{created} UTC" if created else "-",
            "code that trained": _commits([commit] if commit else []),
            "training": f"{seconds:,.0f} s" if seconds is not None else "-",
            "packages of the evaluations": _packages(con, checkpoint),
        }  # fmt: skip

    return _beside(told(a), told(b))


def run_origin(a: Run, b: Run) -> tuple[Setting, ...]:
    """Of two runs of lm-eval."""

    def told(run: Run) -> dict[str, str]:
        versions = ", ".join(f"{name} {version}" for name, version in sorted((run.versions or {}).items()))
        return {"read from": run.source, "model": run.model or "not recorded", "versions": versions or "not recorded"}

    return _beside(told(a), told(b))


def _beside(a: dict[str, str], b: dict[str, str]) -> tuple[Setting, ...]:
    return tuple(Setting(name, a[name], b[name]) for name in a)


def _commits(known: list[str]) -> str:
    return f"{'commit' if len(known) == 1 else 'commits'} {', '.join(known)}" if known else "not recorded"


def _packages(con: duckdb.DuckDBPyConnection, checkpoint: str) -> str:
    told: list[dict[str, Any]] = [json.loads(text) for (text,) in con.execute(_VERSIONS, [checkpoint]).fetchall() if text]
    found = {f"{name} {version}" for settings in told for name, version in (settings.get("versions") or {}).items()}
    return ", ".join(sorted(found)) or "not recorded"
