"""The sections of a study's page below the first screen: what each says, in the order of the page."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from retain_core.hypotheses.ledger import Entry
from retain_core.report.changed import LONGEST, Changed
from retain_core.report.parts import Chart, Column, Items, Part, Row, Section, Table, Text
from retain_core.report.results import Results
from retain_core.report.words import interval, points
from retain_core.stats.power import can_see_loss, detectable_from_interval

METHOD = Column("method", "method", "method")
RATE = Column("learning_rate", "learning rate", "rate")


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
        Section("verdict", "The declared comparison", verdict(results)),
        Section("methods", "Every method at its last checkpoint", methods(results, charts)),
        Section("matched", "Drop at matched gain", matched(results, charts)),
        Section("per_benchmark", "What each benchmark lost", benchmarks(results, charts)),
        Section("curves", "Over training", curves(charts)),
        Section("sequence", "One target after the other", sequence(results)),
        Section("kl", "Does KL explain the drop?", law(results, charts)),
        Section("controls", "Controls", controls(results)),
        Section("noise", "Noise floor and power", noise(results)),
        Section("audits", "What stands behind the scores", audits(results)),
        Section("base", "The base", base(results)),
        Section("exploratory", "Everything else that was compared", exploratory(results)),
        Section("ledger", "Hypotheses touched", hypotheses(ledger)),
        Section("changed", "Changed answers", items(results, changed)),
        Section("settings", "Settings that differ", differing(settings)),
        Section("provenance", "Where these numbers come from", provenance(results, origin)),
    ]


def verdict(results: Results) -> list[Part]:
    """The contrast exactly as it was declared and computed."""
    p = results.primary
    if not p:
        return [soft("This study declares no contrast, so it has no verdict; everything below is exploratory.")]
    figure = Markup("no figure")
    if p["diff"] is not None:
        figure = Markup("<b>{} points</b> {}").format(points(p["diff"]), interval(p["ci_low"], p["ci_high"]))
    kept = "robust: the sign stays whichever benchmark is left out"
    robust = "" if p["robust"] is None else f"; {kept if p['robust'] else 'not robust: the sign hangs on a single benchmark'}"
    parts: list[Part] = [
        Text(Markup('Drop of <b>{}</b> minus drop of <b>{}</b> at {}: {}. Verdict: <b class="word">{}</b>{}{}.').format(
            p["a"], p["b"], p["at"], figure, p["verdict"], f" ({p['reason']})" if p["reason"] else "", robust
        )),
        soft(_how_declared(results)),
    ]  # fmt: skip
    if o := results.over_bases:
        parts.append(Text(Markup("Over {} bases ({}): {} points {}, <b>{}</b>.").format(
            o["bases"], ", ".join(o["studies"]), points(o["estimate"]), interval(o["ci_low"], o["ci_high"]), o["verdict"]
        )))  # fmt: skip
    columns = [
        Column("benchmark", "benchmark"), Column("near", "near", "yes"), Column("diff", "difference", "points"),
        Column("ci_low,ci_high", "95 % interval", "interval"),
        Column("p_value", "p", "p"), Column("p_holm", "p (Holm)", "p"), Column("diff_without", "contrast without it", "points"),
    ]  # fmt: skip
    return [
        *parts,
        *_table(
            "primary_benchmarks",
            "The contrast, benchmark by benchmark (points)",
            columns,
            results.primary_benchmarks,
            "contrast_benchmarks",
        ),
    ]


def _how_declared(results: Results) -> str:
    p, said = results.primary, results.spec["primary"]
    assert p is not None
    before = ", before training" if p["declared_before"] else ""
    spent = ""
    if results.looks and results.looks[-1]["overall_error"] > 0.0501:
        spent = (
            "; looks were added that had not been declared, so all looks together err in "
            f"{100 * results.looks[-1]['overall_error']:.1f} % of studies"
        )
    figures = ""
    if p["diff"] is not None:
        figures = (
            f" 90 % interval {interval(p['ci90_low'], p['ci90_high'])}; without the near benchmarks {points(p['diff_far'])}."
        )
    return (
        f"Declared {p['declared_at']} UTC{before}, spec hash {results.revision['spec_hash']}: predicted {said['predict']} 0, "
        f"margin {points(said['margin'])} points, look {p['look']} of {said['looks']} at {100 * (1 - p['level']):.4g} "
        f"%{spent}. {p['rule']}.{figures} Every interval is conditional on this base: one base was drawn, another might "
        "answer otherwise."
    )


def methods(results: Results, charts: dict[str, Chart]) -> list[Part]:
    """The headline table."""
    columns = [
        METHOD, RATE, Column("gain", "gain", "points"), Column("gain_low,gain_high", "95 % interval", "interval"),
        Column("drop", "drop", "points"), Column("drop_low,drop_high", "95 % interval", "interval"),
        Column("gain_exact", "exact gain", "points"), Column("drop_far", "drop, far only", "points"),
    ]  # fmt: skip
    further = [
        METHOD, RATE, Column("gain_by_seed", "gain, each seed", "each"), Column("drop_by_seed", "drop, each seed", "each"),
        Column("kl_forward", "KL forward", "number"), Column("kl_reverse", "KL reverse", "number"),
        Column("weight_distance", "way from base", "number"), Column("style_distance", "style distance", "number"),
    ]  # fmt: skip
    near = f" ({', '.join(results.near)})" if results.near else ""
    gain = (
        f"Gain: change of greedy accuracy (the likeliest answer is right) on {results.spec['target']}. "
        if results.spec["target"]
        else ""
    )
    explained = (
        f"{gain}Drop: mean loss over {len(results.spec['retention'])} retention benchmarks, negative when they improved. "
        f"Far: without the benchmarks that share symbols or format with the target{near}. Exact gain: change of the "
        "probability of a right answer at temperature 1."
    )
    distances = (
        "KL: to the base along sampled answers to target prompts, in nats per token. Way from base: length of the weight "
        "change. Style distance: the base's loss on the training text, in nats per token; empty where the policy writes the "
        "text itself."
    )
    lead = (
        "In points, with 95 % intervals over items and seeds. Overlapping intervals do not mean that two methods are alike: "
        "contrasts decide that."
    )
    table = _table("methods", "Gain and drop of every method", columns, results.methods, "method_summary")
    if not table:
        return []
    more = _table("seeds", "Every seed, and how far each method went", further, results.methods, "method_summary")
    greedy = _chart(charts, "gain_drop_greedy")
    return [soft(lead), *table, soft(explained), *greedy, *more, soft(distances)]


def matched(results: Results, charts: dict[str, Chart]) -> list[Part]:
    """What each method had lost when it had gained as much as the others."""
    if not results.matched:
        return []
    blends = bool(results.spec.get("interpolate"))
    columns = [
        METHOD, Column("gain", "gain", "points"), Column("drop", "drop", "points"), Column("ci_low,ci_high", "95 % interval",
        "interval"),
        RATE, Column("at_edge", "rate at the edge of the grid", "yes"), Column("step",
        "update or alpha" if blends else "update", "number"),
        Column("verdict", "state"), Column("largest_gain", "largest gain", "points"),
    ]  # fmt: skip
    parts: list[Part] = [
        soft(
            "Whoever learns more may lose more; so methods are also compared where they have learnt the same. The learning "
            "rate is the one with the lowest drop there on half of the items; the drop is shown on the other half."
        ),
        *_chart(charts, "matched_gain"),
        *_table(
            "matched_gain",
            "Drop at matched gain (points)",
            columns,
            results.matched,
            "matched_gain",
            folded="matched_gain" in charts,
        ),
    ]
    if blends:
        parts.append(soft(
            "A method with _interpolated behind its name goes straight through weight space, from the base (alpha 0) over "
            "blends with it to the method's last checkpoint (alpha 1), not along its training."
        ))  # fmt: skip
    return parts


def benchmarks(results: Results, charts: dict[str, Chart]) -> list[Part]:
    """Paired drops with lost and gained, near and far apart."""
    columns = [
        Column("benchmark", "benchmark"), Column("near", "near", "yes"), METHOD, RATE, Column("n", "items", "count"),
        Column("seeds", "seeds", "count"),
        Column("base_score", "base", "percent"), Column("score", "after", "percent"), Column("drop", "drop", "points"),
        Column("low,high", "95 % interval", "interval"), Column("lost", "lost", "count"), Column("gained", "gained", "count"),
    ]  # fmt: skip
    table = _table("per_benchmark", "Every retention benchmark (base and after in percent, drop in points)", columns,
                   results.per_benchmark, folded="benchmarks" in charts)  # fmt: skip
    if not table:
        return []
    lead = (
        "The same questions before and after, paired. Lost: right before and wrong after; gained: the other way round, all "
        "seeds together. A mean hides both."
    )
    near = " Near benchmarks share symbols or format with the target; far ones do not." if results.near else ""
    return [soft(lead + near), *_chart(charts, "benchmarks"), *table]


def curves(charts: dict[str, Chart]) -> list[Part]:
    """Gain and drop over the updates."""
    return [*_chart(charts, "gain_over_training"), *_chart(charts, "drop_over_training")]


def sequence(results: Results) -> list[Part]:
    """What became of each target, where there are several."""
    columns = [
        METHOD, RATE, Column("bwt", "backward transfer", "points"), Column("bwt_low,bwt_high", "95 % interval", "interval"),
        Column("bwt_by_seed", "each seed", "each"), Column("forgetting_measure", "peak - end", "points"),
        Column("fwt", "forward transfer", "points"), Column("average", "mean score at the end", "percent"),
    ]  # fmt: skip
    table = _table(
        "sequences", "Backward transfer (points; mean score in percent)", columns, results.sequences, "sequence_summary"
    )
    if not table:
        return []
    lead = (
        f"{results.targets}: every method goes on from the weights where it stopped. Backward transfer: the score of the "
        "earlier targets at the end, minus that at the end of their own stage; below 0 they were forgotten again. Gain, "
        f"exact gain and KL elsewhere on this page are those on {results.spec['target']}, at the end of the whole sequence; "
        "matched gain, fronts and the KL law look at its own stage only."
    )
    return [soft(lead), *table]


def law(results: Results, charts: dict[str, Chart]) -> list[Part]:
    """The KL law beside its trivial rivals."""
    if not results.law:
        return []
    columns = [
        Column("predictor", "predictor"), Column("r2_left_out", "R² with one method left out", "number"),
        Column("left_out_low,left_out_high", "95 % interval", "numbers"), Column("r2", "R² in sample", "number"),
        Column("checkpoints", "checkpoints", "count"), Column("arms", "arms", "count"), Column("reason", "note"),
    ]  # fmt: skip
    parts: list[Part] = [
        soft(
            "KL to the base says how far the model's words have moved. If it explained the drop, any method could be judged "
            "by it."
        )
    ]
    kl = next((row for row in results.law if row["predictor"] == "kl"), None)
    if kl and kl["r2"] is not None and kl["r2_left_out"] is not None:
        beats = "and beats" if kl["beats_trivial"] else "but does not beat"
        parts.append(Text(Markup(
            "R² = <b>{}</b> in sample; <b>{}</b> when a method is predicted from the others (95 % interval {} to {}), {} "
            "what is trivially known: step x learning rate, distance in weights, gain."
        ).format(f"{kl['r2']:.2f}", f"{kl['r2_left_out']:.2f}", f"{kl['left_out_low']:.2f}", f"{kl['left_out_high']:.2f}",
        beats)))  # fmt: skip
    explained = (
        "A quadratic of the drop on each predictor; whole arms are resampled. Left out: fitted on the other methods, asked "
        "about this one; below 0 it does worse than the mean."
    )
    return [
        *parts,
        *_chart(charts, "kl_law"),
        *_table("kl_law", "KL and its trivial rivals", columns, results.law, "kl_law"),
        soft(explained),
    ]


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
    table = _table("controls", "Controls (gain and drop in points)", columns, results.controls, "controls")
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
            *_table("noise_floor", "Noise floor", columns, rows, "noise_floor"),
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
        *_table("power", "Whether each benchmark can show a loss at all (base score in percent)", columns, rows, folded=True),
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
    table = _table("audits", "Answers that are no answers (percent)", columns, results.audits)
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
    parts = _table(
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
    table = _table("contrasts", f"{n} exploratory contrasts ({some}; points)", columns, shown, "contrasts", folded=True)
    lead = (
        f"{n} contrasts were computed beside the declared one. Among so many some look large by luck: p values are adjusted "
        "after Benjamini and Hochberg, and none of them is a verdict."
    )
    return [soft(lead), *table] if table else []


MOST_CONTRASTS = 400


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
    table = _table("ledger", "Hypotheses that rest on arms of this study (points)", columns, rows)
    lead = (
        "Arms are trained once and serve every study that asks for them, so these questions share data with this page: "
        "their answers are not independent of each other."
    )
    return [soft(lead), *table] if table else []


def items(results: Results, changed: Changed) -> list[Part]:
    """Both answers side by side."""
    if not changed.total:
        return []
    shown = f"{len(changed.rows):,} of {changed.total:,}" if changed.sampled else f"all {changed.total:,}"
    how = ", drawn evenly over benchmarks, methods and directions" if changed.sampled else ""
    cut = f" Texts longer than {LONGEST} characters are cut ({changed.cut:,} texts)." if changed.cut else ""
    note = (
        "Questions that were right before and wrong after training (lost), or the other way round (gained), at the last "
        f"checkpoints: {shown} on this page{how}.{cut} All of them: retain sql \"FROM flips WHERE study = '{results.study}'\""
    )
    return [Items(note)]


def differing(settings: tuple[list[str], list[Row]]) -> list[Part]:
    """Only what is not the same for all methods."""
    keys, rows = settings
    if not keys or len(rows) < 2:
        return []
    columns = [METHOD, *(Column(key, key.replace("_", " "), "code") for key in keys)]
    lead = (
        "Only what is not the same for every method; learning rates and seeds are the same grid for all. Empty: the method "
        "has no such dial."
    )
    return [soft(lead), *_table("settings", "Dials that differ between methods", columns, rows)]


def provenance(results: Results, origin: list[tuple[str, str]]) -> list[Part]:
    """What was recorded, and how to repeat it."""
    rows = [{"what": what, "said": said} for what, said in origin]
    parts: list[Part] = [
        Text(Markup("Every number is computed from stored answers, question by question, paired with the base. Ask them "
        "yourself: "
                    "<code>retain sql \"FROM forgetting WHERE study = '{}'\"</code>").format(results.study)),
        *_table("provenance", "What made these numbers", [Column("what", "what"), Column("said", "recorded", "long")], rows),
    ]  # fmt: skip
    if results.spec.get("budget"):
        parts.append(Text(Markup(
            "To repeat it: check out the commit above, then <code>retain run study.yaml</code> with the "
            "<code>study.yaml</code> beside this page. Arms that are already there are not trained again; on the same "
            "platform with the same packages a new home gives the same numbers to the last bit."
        )))  # fmt: skip
    files = "gain_drop.svg and every other chart as SVG, every table as CSV, headline.md and headline.tex"
    return [*parts, soft(f"Beside this page: {files}.")]


def soft(text: str) -> Text:
    """A paragraph in the second colour; the text is escaped."""
    return Text(Markup("{}").format(text), "soft")


def _chart(charts: dict[str, Chart], name: str) -> list[Part]:
    return [charts[name]] if name in charts else []


def _table(
    name: str, title: str, columns: Sequence[Column], rows: Sequence[Row], relation: str = "", folded: bool = False
) -> list[Part]:
    """The table without the columns of which nothing is known; nothing where there are no rows."""
    known = [c for c in columns if any(row[name] not in (None, "", []) for row in rows for name in c.names)]
    return [Table(name, title, known, rows, relation, folded)] if known else []
