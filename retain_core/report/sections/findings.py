"""What the study found: the verdict, gain and drop of every method, benchmark by benchmark, over training, the KL law."""

from __future__ import annotations

from markupsafe import Markup

from retain_core.report.parts import Chart, Column, Part, Text
from retain_core.report.results import Results
from retain_core.report.sections.shared import METHOD, RATE, chart_of, soft, table_of
from retain_core.report.words import interval, points


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
        *table_of(
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
    table = table_of("methods", "Gain and drop of every method", columns, results.methods, "method_summary")
    if not table:
        return []
    more = table_of("seeds", "Every seed, and how far each method went", further, results.methods, "method_summary")
    greedy = chart_of(charts, "gain_drop_greedy")
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
        *chart_of(charts, "matched_gain"),
        *table_of(
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
    table = table_of("per_benchmark", "Every retention benchmark (base and after in percent, drop in points)", columns,
                   results.per_benchmark, folded="benchmarks" in charts)  # fmt: skip
    if not table:
        return []
    lead = (
        "The same questions before and after, paired. Lost: right before and wrong after; gained: the other way round, all "
        "seeds together. A mean hides both."
    )
    near = " Near benchmarks share symbols or format with the target; far ones do not." if results.near else ""
    return [soft(lead + near), *chart_of(charts, "benchmarks"), *table]


def curves(charts: dict[str, Chart]) -> list[Part]:
    """Gain and drop over the updates."""
    return [*chart_of(charts, "gain_over_training"), *chart_of(charts, "drop_over_training")]


def sequence(results: Results) -> list[Part]:
    """What became of each target, where there are several."""
    columns = [
        METHOD, RATE, Column("bwt", "backward transfer", "points"), Column("bwt_low,bwt_high", "95 % interval", "interval"),
        Column("bwt_by_seed", "each seed", "each"), Column("forgetting_measure", "peak - end", "points"),
        Column("fwt", "forward transfer", "points"), Column("average", "mean score at the end", "percent"),
    ]  # fmt: skip
    table = table_of(
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
        *chart_of(charts, "kl_law"),
        *table_of("kl_law", "KL and its trivial rivals", columns, results.law, "kl_law"),
        soft(explained),
    ]
