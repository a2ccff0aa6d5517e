"""The sections of a study's page below the first screen: what each says, in the order of the page."""

from __future__ import annotations

from collections.abc import Sequence

from retain_core.hypotheses.ledger import Entry
from retain_core.report.changed import Changed
from retain_core.report.parts import Chart, Row, Section
from retain_core.report.results import Results
from retain_core.report.sections import checks, findings, sources


def study_sections(
    results: Results,
    charts: dict[str, Chart],
    changed: Changed,
    settings: tuple[list[str], list[Row]],
    origin: list[tuple[str, str]],
    ledger: Sequence[Entry],
) -> list[Section]:
    """All sections; those without content are not shown."""
    return [
        Section("verdict", "The declared comparison", findings.verdict(results)),
        Section("methods", "Every method at its last checkpoint", findings.methods(results, charts)),
        Section("matched", "Drop at matched gain", findings.matched(results, charts)),
        Section("per_benchmark", "What each benchmark lost", findings.benchmarks(results, charts)),
        Section("curves", "Over training", findings.curves(charts)),
        Section("sequence", "One target after the other", findings.sequence(results)),
        Section("kl", "Does KL explain the drop?", findings.law(results, charts)),
        Section("controls", "Controls", checks.controls(results)),
        Section("noise", "Noise floor and power", checks.noise(results)),
        Section("audits", "What stands behind the scores", checks.audits(results)),
        Section("base", "The base", checks.base(results)),
        Section("exploratory", "Everything else that was compared", checks.exploratory(results)),
        Section("ledger", "Hypotheses touched", checks.hypotheses(ledger)),
        Section("published", "Beside the published figures", sources.published(results)),
        Section("changed", "Changed answers", sources.items(results, changed)),
        Section("settings", "Settings that differ", sources.differing(settings)),
        Section("provenance", "Where these numbers come from", sources.provenance(results, origin)),
    ]
