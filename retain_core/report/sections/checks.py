"""What the findings stand on: controls, noise and power, audits, the base, all other contrasts, other questions asked."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from retain_core.hypotheses.ledger import Entry
from retain_core.report.parts import Column, Part, Text
from retain_core.report.results import Results
from retain_core.report.sections.shared import METHOD, RATE, soft, table_of
from retain_core.stats.power import can_see_loss, detectable_from_interval

MOST_CONTRASTS = 400


def controls(results: Results) -> list[Part]:
    """What must happen whatever the methods do."""
    columns = [
        Column("control", "control"), Column("expectation", "what must happen", "long"), Column("gain", "gain", "points"),
        Column("drop", "drop", "points"), Column("flips", "flips", "count"), Column("weight_distance", "way from base",
        "number"),
        Column("passed", "passed", "passed"),
    ]  # fmt: skip
    lead = (
        "Arms of which the outcome is known beforehand, trained and evaluated like any other. If one fails, nothing else is "
        "believed."
    )
    table = table_of("controls", "Controls (gain and drop in points)", columns, results.controls, "controls")
    return [soft(lead), *table] if table else []


def noise(results: Results) -> list[Part]:
    """How far the base is from itself, and how small a difference could have been found."""
    parts: list[Part] = []
    if results.floor:
        columns = [
            Column("benchmark", "benchmark"), Column("metric", "metric"), Column("n", "items", "count"),
            Column("max_abs_drop", "largest change (points)", "tiny_points"), Column("flips", "flips"),
        ]  # fmt: skip
        rows = [row | {"flips": row["flips"] or "not counted"} for row in results.floor]
        parts += [
            soft(
                f"The base evaluated {results.floor[0]['reevaluations']} times again under changes that must not matter: "
                "batch size, order of the items, threads, precision. Changes below this are noise of the measurement."
            ),
            *table_of("noise_floor", "Noise floor", columns, rows, "noise_floor"),
        ]
    return [*parts, *_power(results)]


def _power(results: Results) -> list[Part]:
    p, parts = results.primary, list[Part]()
    if p and p["diff"] is not None and p["stderr"] is not None and p["ci_high"] is not None:
        least = detectable_from_interval((p["ci_high"] - p["ci_low"]) / 2, p["stderr"], alpha=1 - p["level"])
        wrong = ""
        if p["type_s"] is not None and p["type_m"] is not None:
            wrong = (
                f" If the true difference were the margin ({100 * results.margin:g} points), a difference that this study "
                f"finds would have the wrong sign in {100 * p['type_s']:.1f} % of studies, and be exaggerated "
                f"{p['type_m']:.1f} times."
            )
        parts.append(Text(Markup(
            "Power: the smallest difference that a study like this one finds in 8 of 10 repetitions is <b>{} points</b>.{}"
        ).format(f"{100 * least:.1f}", wrong)))  # fmt: skip
    rows = []
    for s in results.base_scores:
        if s["role"] == "retention" and s["primary"] and s["score"] is not None and s["n"]:
            view = can_see_loss(s["score"], 1 / s["choices"] if s["choices"] else 0.0, s["n"], s["clusters"], results.margin)
            rows.append({"benchmark": s["benchmark"], "n": s["n"], "score": s["score"], "view": str(view)})
    columns = [
        Column("benchmark", "benchmark"), Column("n", "items", "count"), Column("score", "base score", "percent"),
        Column("view", f"can it show a loss of {100 * results.margin:g} points?", "long"),
    ]  # fmt: skip
    return [
        *parts,
        *table_of("power", "Whether each benchmark can show a loss at all (base score in percent)", columns, rows, folded=True),
    ]


def audits(results: Results) -> list[Part]:
    """Answers that do not parse, are cut, are empty; spill."""
    columns = [
        METHOD, RATE, Column("unparsed", "not parsed", "percent"), Column("cut", "cut", "percent"), Column("empty", "empty",
        "percent"),
        Column("mean_tokens", "tokens", "number"), Column("strict", "strict", "percent"), Column("lenient", "lenient",
        "percent"),
        Column("spill", "spill", "percent"), Column("harmful_compliance", "harmful compliance", "percent"),
        Column("over_refusal", "over-refusal", "percent"),
    ]  # fmt: skip
    explained = (
        "Percent, last checkpoints, mean over seeds and over the retention benchmarks that have the figure; tokens: mean "
        "length. Strict: the score that the study counts, where there is a lenient one beside it. Lenient: the right answer "
        "stands somewhere in the answer. Spill: share of the lost answers that hold words which only the target's answers "
        "use."
    )
    table = table_of("audits", "Answers that are no answers (percent)", columns, results.audits)
    return (
        [
            soft("A drop may be lost knowledge, or only a lost habit: an answer in another form, cut off, or empty."),
            *table,
            soft(explained),
        ]
        if table
        else []
    )


def base(results: Results) -> list[Part]:
    """The base's scores and support."""
    columns = [
        Column("benchmark", "benchmark"), Column("role", "role"), Column("near", "near", "yes"), Column("metric", "metric"),
        Column("n", "items", "count"), Column("score", "score", "score"), Column("stderr", "standard error", "score"),
    ]  # fmt: skip
    parts = table_of(
        "base", "Scores of the base (fractions; no standard error under 20 clusters)", columns, results.base_scores, "scores"
    )
    if results.at_the_edge:
        parts.append(soft(
            f"The base scores within 5 points of 0 or 1 on {', '.join(results.at_the_edge)}: differences between seeds are "
            "cut off there, and intervals over seeds may hold the truth less often than they say (at least 90 %)."
        ))  # fmt: skip
    if results.support:
        told = ", ".join(f"pass@{k} {value:.3f}" for k, value in results.support.items())
        parts.append(soft(f"Support of the base on {results.spec['target']}: {told}."))
    return parts


def exploratory(results: Results) -> list[Part]:
    """Contrasts that were not declared."""
    columns = [
        Column("a", "a", "method"), Column("b", "b", "method"), Column("at", "at"), Column("learning_rate_a", "rate of a",
        "rate"),
        Column("learning_rate_b", "rate of b", "rate"), Column("diff", "drop of a - drop of b", "points"),
        Column("ci_low,ci_high", "95 % interval", "interval"), Column("p_adjusted", "p (adjusted)", "p"), Column("verdict",
        "verdict"),
        Column("robust", "robust", "yes"),
    ]  # fmt: skip
    n = len(results.contrasts)
    shown = sorted(results.contrasts, key=lambda c: (c["p_adjusted"] is None, c["p_adjusted"] or 0.0))[:MOST_CONTRASTS]
    some = f"the {MOST_CONTRASTS} of the smallest p; all by SQL" if n > MOST_CONTRASTS else "all"
    table = table_of("contrasts", f"{n} exploratory contrasts ({some}; points)", columns, shown, "contrasts", folded=True)
    lead = (
        f"{n} contrasts were computed beside the declared one. Among so many some look large by luck: p values are adjusted "
        "after Benjamini and Hochberg, and none of them is a verdict."
    )
    return [soft(lead), *table] if table else []


def hypotheses(ledger: Sequence[Entry]) -> list[Part]:
    """Questions of the hypothesis ledger that rest on these arms."""
    columns = [
        Column("number", "nr", "count"), Column("asks", "question", "long"), Column("study", "study"), Column("verdict",
        "verdict"),
        Column("diff", "drop a - b", "points"), Column("low,high", "95 % interval", "interval"), Column("state", "state"),
        Column("note", "note", "long"),
    ]  # fmt: skip
    rows = [
        {
            "number": e.question.number, "asks": e.question.asks, "study": e.question.study["study"],
            "verdict": e.verdict or "",
            "diff": e.diff, "low": e.low, "high": e.high, "state": e.state, "note": e.note,
        }
        for e in ledger
    ]  # fmt: skip
    table = table_of("ledger", "Hypotheses that rest on arms of this study (points)", columns, rows)
    lead = (
        "Arms are trained once and serve every study that asks for them, so these questions share data with this page: "
        "their answers are not independent of each other."
    )
    return [soft(lead), *table] if table else []
