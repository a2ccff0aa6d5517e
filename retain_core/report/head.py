"""The first screen of a study's page: the question, one sentence that answers it, and how far to trust it."""

from __future__ import annotations

from markupsafe import Markup

from retain_core.arms import rate_text
from retain_core.report.parts import Chart, Chip, Head
from retain_core.report.results import Results
from retain_core.report.words import amount, counted, interval, listed, points, robust_tail, span, verdict_tail, where

WORDS = (
    ("point", "one percentage point: 5 points are 5 questions in 100."),
    ("gain", "how many points more of the taught task are right than before training."),
    ("drop", "how many points less of everything else are right than before; below 0 it got better."),
    ("95 % interval", "the range in which the true figure lies, as far as these questions and seeds can tell."),
)
EXACT = (
    "gain",
    "how many points more of the taught task are right than before training. Comparisons and this chart take the exact score: "
    "how many points likelier a right answer has become, whichever answer is the likeliest.",
)


def study_head(results: Results, chart: Chart | None) -> Head:
    """The first screen."""
    model = results.spec["base"]["model"]
    return Head(
        kicker=f"Study {results.study}",
        question=f"What did teaching {results.targets} cost?" if results.spec["target"] else f"What was lost against {model}?",
        answer=answer(results),
        chips=chips(results),
        warnings=warnings(results),
        facts=facts(results),
        words=_words(results),
        chart=chart,
        chart_note=_chart_note(results),
    )  # fmt: skip


def _words(results: Results) -> tuple[tuple[str, str], ...]:
    """The words, gain as this study compares it."""
    if not results.spec["target"]:
        return tuple(word for word in WORDS if word[0] != "gain")
    return tuple(EXACT if word[0] == "gain" and results.gain_key == "gain_exact" else word for word in WORDS)


def _chart_note(results: Results) -> str:
    """How to read the plane; only what is drawn."""
    said = ["Right and low is good: more learnt, less lost. Thin lines: one seed each."]
    if results.pareto:
        said.append("Thick lines: the best trades of a method; dashed: of all.")
    if any(m["ci_low"] is not None for m in results.matched):
        said.append("Shaded: 95 % intervals at equal gain" + (", of the two compared." if results.primary else "."))
    return " ".join(said)


def answer(results: Results) -> Markup:
    """The verdict of the declared contrast in one sentence."""
    p = results.primary
    if not p:
        return Markup("This study declared no comparison before it ran, so it has no verdict: {}").format(_largest(results))
    if p["diff"] is None:
        why = p["reason"] or {
            "not reached": "not both of them gained as much as the comparison asks for",
            "too noisy": "the gain is not known well enough where they would be compared",
        }.get(p["verdict"], p["verdict"])
        return Markup("There is no verdict on <b>{}</b> and <b>{}</b>: {}.").format(p["a"], p["b"], why)
    level = f"{100 * (1 - _alpha(results)):.3g}"
    said = Markup("teaching with <b>{}</b> cost <b>{}</b> teaching with <b>{}</b> {} ({} % interval: {})").format(
        p["a"], amount(p["diff"]), p["b"], where(p["at"]), level, span(p["ci_low"], p["ci_high"])
    )
    if p["verdict"] == "withheld":
        return Markup("No verdict, as {}. For what it is worth, {}.").format(p["reason"] or "a control failed", said)
    robust = f"; {robust_tail(p['robust'])}" if p["robust"] is not None else ""
    return Markup("On what the model could do before, {}: {}{}.").format(said, verdict_tail(p, results.margin), robust)


def chips(results: Results) -> list[Chip]:
    """Verdict, robustness and controls as words in colour."""
    found, p = [], results.primary
    if p:
        found.append(Chip(p["verdict"], "bad" if p["verdict"] in ("withheld", "not reached", "too noisy") else "plain"))
        if p["robust"] is not None and p["verdict"] != "withheld":
            found.append(Chip("robust" if p["robust"] else "not robust", "good" if p["robust"] else "bad"))
        if p["declared_before"] is not None:
            early = p["declared_before"]
            found.append(Chip("declared before training" if early else "declared after training", "plain" if early else "bad"))
    else:
        found.append(Chip("no declared comparison"))
    passed = list(results.all_controls.values())
    if not passed:
        found.append(Chip("no controls"))
    elif all(passed):
        found.append(Chip(f"all {len(passed)} controls passed" if len(passed) > 1 else "the control passed", "good"))
    else:
        found.append(Chip(f"{sum(passed)} of {counted(len(passed), 'control')} passed", "bad"))
    return found


def warnings(results: Results) -> list[Markup]:
    """What a reader must know before believing anything below."""
    found = []
    if results.unfinished:
        told = [f"{arm['arm']} ({arm['error']})" if arm["error"] else arm["arm"] for arm in results.unfinished]
        more = f" and {len(told) - 12} more" if len(told) > 12 else ""
        found.append(Markup("<b>{} of {} arms are missing:</b> {}{}.").format(
            len(results.unfinished), len(results.arms), "; ".join(told[:12]), more))  # fmt: skip
    failed = [control for control, passed in results.all_controls.items() if not passed]
    if failed:
        told = failed if len(failed) <= 3 else [*failed[:2], f"{len(failed) - 2} more"]
        found.append(Markup("Not all controls passed ({}), so read nothing into the differences below.").format(listed(told)))
    if results.primary and results.primary["declared_before"] is False:
        found.append(Markup("The comparison was declared after these arms had been trained: read it as exploratory."))
    if len(results.spec["seeds"]) == 1 and results.arms:
        found.append(Markup("One seed only: nothing here says what another seed would do."))
    if not results.points:
        found.append(Markup("No checkpoint has been evaluated yet: there is nothing to compare."))
    elif all(p["drop"] is None for p in results.points):
        found.append(Markup("No retention benchmark was evaluated: there is no drop to show."))
    return found


def facts(results: Results) -> list[tuple[str, Markup]]:
    """What was compared with what, in a few lines."""
    spec = results.spec
    retention = [b["benchmark"] + (" (near)" if b["near"] else "") for b in spec["retention"]]
    methods = list(dict.fromkeys(m["method"] for m in results.methods)) or [m["label"] for m in spec["methods"]]
    rates = ", ".join(rate_text(rate) for rate in spec.get("learning_rates") or [])
    done = sum(arm["status"] == "done" for arm in results.arms)
    seeds = len(spec["seeds"])
    return [
        ("Base", Markup("{}{}").format(spec["base"]["model"], _laboratory(results))),
        ("Compared", Markup("{}: {}{}").format(
            counted(len(methods), "method"), listed(methods) if len(methods) <= 12 else f"{listed(methods[:12])} and more",
            f"; learning {'rates' if ',' in rates else 'rate'} {rates}; {counted(seeds, 'seed')} each" if rates else "")),
        ("Must not be lost", Markup("{}").format(listed(retention))),
        *_lost(results),
        ("Behind it", Markup("{} of {} done{}, {}").format(
            done, counted(len(results.arms), "arm"),
            f" ({counted(len(results.controls), 'control')} among them)" if results.controls else "",
            counted(len(results.points), "checkpoint"))),
    ]  # fmt: skip


def _lost(results: Results) -> list[tuple[str, Markup]]:
    """What each of the two compared lost by itself: the sentence says only how far they are apart."""
    p = results.primary
    if not p or p["diff"] is None:
        return []
    if p["at"] == "last":
        at = {p["a"]: p["learning_rate_a"], p["b"]: p["learning_rate_b"]}
        found = {m["method"]: (m["drop"], m["drop_low"], m["drop_high"]) for m in results.methods
                 if m["method"] in at and m["learning_rate"] == at[m["method"]]}  # fmt: skip
    else:
        gain = float(p["at"].partition("=")[2])
        found = {m["method"]: (m["drop"], m["ci_low"], m["ci_high"]) for m in results.matched if abs(m["gain"] - gain) < 1e-9}
    told = [(name, *found[name]) for name in (p["a"], p["b"]) if name in found and found[name][0] is not None]
    each = [Markup("{} <b>{}</b>{}").format(name, points(drop), f" {interval(low, high)}" if low is not None else "")
            for name, drop, low, high in told]  # fmt: skip
    half = " (all questions; the verdict rests on half of them)" if p["at"] == "last" else ""
    return [("Lost", Markup(", ").join(each) + f" points, {where(p['at'])}{half}")] if each else []


def _laboratory(results: Results) -> str:
    if not results.spec["base"]["model"].startswith("lab/"):
        return ""
    return ". A laboratory result: it says what happens in this generated world, on this one base"


def _alpha(results: Results) -> float:
    assert results.primary is not None
    return 1 - float(results.primary["level"])


def _largest(results: Results) -> Markup:
    """Of a study without a verdict: what its largest drop is."""
    known = [m for m in results.methods if m["drop"] is not None]
    if not known:
        return Markup("everything below is exploratory.")
    worst = max(known, key=lambda m: m["drop"])
    between = f" ({points(worst['drop_low'])} to {points(worst['drop_high'])})" if worst["drop_low"] is not None else ""
    return Markup("exploring, the largest drop is that of <b>{}</b>, {} points{}.").format(
        worst["method"], points(worst["drop"]), between
    )
