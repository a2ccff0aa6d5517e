"""The bodies of the light commands: what they print, as text."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from retain_core.errors import InputError
from retain_core.settings import settings
from retain_core.warehouse.catalogue import is_dotted
from retain_core.warehouse.query import Format, query, render

if TYPE_CHECKING:
    from retain_core.plan import PlannedArm, StudyPlan
    from retain_core.store import Store
    from retain_core.study import Study


def one_query(words: list[str]) -> str:
    """What stands after `retain sql`: a query in quotes, or `.schema NAME`, which needs none."""
    if len(words) > 1 and not is_dotted(words[0]):
        raise InputError('put the query in quotes, as in `retain sql "FROM method_summary"`')
    return " ".join(words)


def sql_text(sql: str, form: str, output: Path | None = None) -> str:
    """The answer of the warehouse in the format asked for, cut to the width of a terminal; or, where it was written."""
    if output is None:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        return query(settings().warehouse, sql, _format(form), width)
    from retain_core.warehouse.export import export

    if form != "table":
        raise InputError("the ending of --output says the format; leave --format out")
    rows = export(settings().warehouse, sql, output)
    return f"{output}: {rows} row{'' if rows == 1 else 's'}"


def hypotheses_text(form: str) -> str:
    """The ledger of the hypothesis studies in the format asked for."""
    from retain_core.hypotheses.ledger import ledger_text

    return ledger_text(settings(), _format(form))


def _format(name: str) -> Format:
    if name not in get_args(Format):
        raise InputError(f"unknown format {name!r}; known: {', '.join(get_args(Format))}")
    return name  # type: ignore[return-value]


def plan_text(path: Path) -> str:
    """Every arm of a study file with what is done and what is missing, and what that will cost."""
    from retain_core.cost import cost_lines
    from retain_core.cross import load_studies
    from retain_core.disk import disk_lines, free_bytes
    from retain_core.plan import plan_study
    from retain_core.remote import open_store
    from retain_core.run import parallel_arms

    file = load_studies(path)
    store = open_store(settings(), read_only=True)
    plans = [plan_study(study, store) for study in file.studies]
    texts = [_planned(plan, store) for plan in plans]
    if not file.crossed:
        return texts[0]
    arms = [arm for plan in plans for arm in plan.arms]
    whole = [
        f"{file.name}: {len(plans)} studies, {_counts(arms)}",
        *cost_lines(plans, store, parallel_arms(file.studies[0])),
        *disk_lines(plans, store, parallel_arms(file.studies[0]), free_bytes(store)),
        *(f"then {small} predicts {large} on {target}" for small, large, target in file.steps_up()),
    ]
    return "\n".join([*(f"{plan.study.study}\n\n{text}\n" for plan, text in zip(plans, texts, strict=True)), *whole])


def _counts(arms: list[PlannedArm]) -> str:
    cached = sum(arm.done for arm in arms)
    return f"{len(arms)} arms: {cached} cached, {len(arms) - cached} to do"


def _planned(plan: StudyPlan, store: Store) -> str:
    """One study of a file, arm by arm."""
    from retain_core.cost import cost_lines, seconds_per_seed
    from retain_core.detectable import detectable_lines
    from retain_core.disk import disk_lines, free_bytes
    from retain_core.run import parallel_arms

    study = plan.study
    rows = [
        (
            arm.spec.arm, arm.spec.role, "cached" if arm.done else "to do",
            ", ".join(map(str, arm.spec.checkpoints)), arm.missing_evaluations,
        )
        for arm in plan.arms
    ]  # fmt: skip
    table = render(["arm", "role", "state", "checkpoints", "evaluations missing"], rows, "table").rsplit("\n", 1)[0]
    base = "cached" if plan.base_ready else "to do"
    return "\n".join(
        [
            table,
            "",
            f"base {study.base.model}: {base}",
            _counts(plan.arms),
            *cost_lines([plan], store, parallel_arms(study)),
            *_card_lines(plan),
            *disk_lines([plan], store, parallel_arms(study), free_bytes(store)),
            *study.own.notes(),
            *study.own.public_lines(),
            *pinned_lines(study),
            "",
            *detectable_lines(study, settings().warehouse, seconds_per_seed(plan, store)),
        ]
    )


def _card_lines(plan: StudyPlan) -> list[str]:
    """Which cards the trainings that are still to do fit on; nothing for a base of the lab."""
    from retain_core.cards import card_lines, demand_of

    demand = demand_of(arm.spec for arm in plan.arms if arm.to_train)
    return card_lines(demand) if demand else []


def pinned_lines(study: Study) -> list[str]:
    """Whether all that a study names on the hub is named by its commit; nothing where it names nothing there."""
    if not study.names_the_hub():
        return []
    loose = study.unpinned()
    return [f"not pinned: {', '.join(loose)} (`retain prefetch --pin`)" if loose else "pinned: every model and data set"]


def prefetch_lines(
    path: Path, pinned: bool = False, experts: str | None = None, model: str | None = None, in_style: str | None = None
) -> Iterator[str]:
    """Fetch what a study file names on the hub; a line for each thing as it comes. `pinned` writes the commits first.

    `experts` is the address of a server whose `model` answers the target's training problems, and `in_style` that of one
    with the base, or `here`: it says those answers in its own words.
    """
    from retain_core.cross import load_studies
    from retain_core.pin import pin
    from retain_core.prefetch import ask_experts, prefetch

    if (experts is None) != (model is None):
        raise InputError("--experts URL and --expert-model NAME belong together")

    if pinned:
        yield from pin(path)
    studies = load_studies(path, fetched=False).studies
    yield from prefetch(studies, settings().home)
    yield from ask_experts(studies, settings(), (experts, model) if experts and model else None, in_style)


def status_text() -> str:
    """The studies of this home and how far each is."""
    from retain_core.imported.store import imported_studies, read_imported
    from retain_core.plan import plan_study
    from retain_core.remote import open_store
    from retain_core.revisions import revisions_of, studies
    from retain_core.study import Study

    config = settings()
    store = open_store(config, read_only=True)
    rows = []
    for name in studies(store):
        current = next(r for r in revisions_of(store, name) if r.current)
        try:
            plan = plan_study(Study.model_validate(current.spec), store)
        except (InputError, ValueError) as error:
            rows.append((name, current.number, current.declared_at, "", f"cannot be read: {error}".splitlines()[0], ""))
            continue
        done = sum(arm.done for arm in plan.arms)
        page = config.reports / name / "index.html"
        state = "done" if plan.done else "incomplete"
        rows.append(
            (name, current.number, current.declared_at, f"{done}/{len(plan.arms)}", state, str(page) if page.is_file() else "")
        )
    for name in imported_studies(store):
        study = read_imported(store, name)
        if study:
            page = config.reports / name / "index.html"
            models = f"{len(study.models)} models"
            rows.append((name, 1, study.models[-1].imported_at, models, "imported", str(page) if page.is_file() else ""))
    if not rows:
        return f"no study was run in {config.home} yet; begin with `retain run studies/lab.yaml`"
    return render(["study", "revision", "declared", "arms", "state", "report"], rows, "table")


def import_text(path: Path, address: str, target: str | None, cluster: str | None) -> str:
    """Import one model's answers, load them, and say what can be asked now."""
    from retain_core.imported.store import BASE, answered_by_all, import_run, imported_contents
    from retain_core.remote import open_store
    from retain_core.store import lock_home
    from retain_core.warehouse.load import load_contents
    from retain_core.warehouse.rebuild import load_missing

    config = settings()
    store = open_store(config)
    store.prepare()
    with lock_home(config.home):
        study = import_run(store, path, address, target, cluster)
        load_missing(store, config.warehouse, but=study.study)
        load_contents(config.warehouse, imported_contents(store, study))
    model = study.model(address.partition("/")[2])
    assert model is not None
    lines = [f"{address}: {len(model.evaluations)} benchmarks imported from {path}"]
    if study.model(BASE) is None:
        lines.append(f"the base is still missing: `retain import PATH --as {study.study}/base`")
    elif len(study.models) == 1:
        lines.append(f"now import what is compared with it: `retain import PATH --as {study.study}/<label>`")
    else:
        lines += ["", sql_text(_IMPORTED.format(study.study), "table"), f"\npage: {report_path(study.study)}"]
    answered = [set(m.evaluations) for m in study.models]
    if beside := set().union(*answered) - answered_by_all(answered):
        lines.append(f"not answered by every model of {study.study}, so beside and in no mean: {', '.join(sorted(beside))}")
    return "\n".join(lines)


_IMPORTED = """SELECT method AS model, benchmark, metric, n, base_score, score, "drop", ci_low, ci_high, lost, gained, p_value
FROM forgetting WHERE study = '{}' AND method <> 'base'"""


def report_path(name: str) -> Path:
    """Write a study's page again."""
    from retain_core.report.build import write_report

    config = settings()
    return write_report(config.warehouse, config.reports, name)


def gc_text(delete: bool, every: bool) -> str:
    """What nothing in the home needs, with sizes and ages; removed when told."""
    from itertools import groupby

    from retain_core.disk import size_text
    from retain_core.housekeeping import leftovers, remove_leftovers
    from retain_core.store import Store

    config = settings()
    store = Store(config.artifacts, read_only=True)
    known = remove_leftovers(store, config.home) if delete else leftovers(store)
    if every:
        rows: list[tuple[object, ...]] = [(x.what, x.why, size_text(x.bytes), _age(x.age), str(x.path)) for x in known.found]
        columns = ["what", "why", "size", "age", "path"]
    else:
        groups = [list(group) for _, group in groupby(known.found, lambda x: (x.what, x.why))]
        rows = []
        for group in groups:
            ages = [x.age for x in group]
            size = size_text(sum(x.bytes for x in group))
            rows.append((len(group), group[0].what, group[0].why, size, _age(min(ages)), _age(max(ages))))
        columns = ["count", "what", "why", "size", "youngest", "oldest"]
    notes = [f"no artifact is listed, it may be that of a text that cannot be read: {sentence}" for sentence in known.unread]
    if not known.found:
        return "\n".join([f"nothing in {config.home} can be removed", *notes])
    total = size_text(sum(x.bytes for x in known.found))
    done = f"removed {total}" if delete else f"{total} in all; `retain gc --delete` removes it"
    return "\n".join([render(columns, rows, "table").rsplit("\n", 1)[0], "", done, *notes])


def _age(seconds: float) -> str:
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
