"""The `retain` command: registers the commands and imports what each needs only when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows import reading
from flows.options import Cluster, Metric

app = typer.Typer(
    help="What a fine-tuned language model gained, what it lost, and which ingredient did it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(reading.app)
StudyFile = Annotated[Path, typer.Argument(help="study file, such as studies/lab.yaml", metavar="STUDY.yaml")]


@app.command()
def run(studies: Annotated[list[Path], typer.Argument(help="study files", metavar="STUDY.yaml...")]) -> None:
    """Run studies one after the other: all are declared before the first begins; what is done is not done again."""
    from flows.commands import run_studies

    raise typer.Exit(run_studies(studies))


@app.command()
def extend(
    name: Annotated[str, typer.Argument(help="name of a study that was run", metavar="NAME")],
    seeds: Annotated[int, typer.Option("--seeds", help="how many seeds to add")],
) -> None:
    """Add seeds to a study after looking at it; every further look at its contrast spends alpha."""
    from flows.commands import extend_study

    raise typer.Exit(extend_study(name, seeds))


@app.command("import")
def import_samples(
    path: Annotated[Path, typer.Argument(help="output folder or samples file of lm-eval", metavar="PATH")],
    address: Annotated[str, typer.Option("--as", help="STUDY/base for the base, STUDY/<label> for any other model")],
    target: Annotated[str | None, typer.Option("--target", help="the benchmark that was trained for, if any")] = None,
    cluster: Cluster = None,
) -> None:
    """Keep lm-eval sample files made elsewhere as an evaluation, in the warehouse beside all others."""
    from retain_core.commands import import_text

    print(import_text(path, address, target, cluster))


@app.command()
def plan(study: StudyFile) -> None:
    """Show the arms of a study and what of it is done; runs nothing."""
    from retain_core.commands import plan_text

    print(plan_text(study))


@app.command()
def prefetch(
    study: StudyFile,
    pin: Annotated[bool, typer.Option("--pin", help="write the commits that they have now into the study file first")] = False,
    experts: Annotated[
        str | None, typer.Option(help="address of a server, as of vLLM, that answers the training problems")
    ] = None,
    expert_model: Annotated[str | None, typer.Option(help="the model that answers them; key: RETAIN_EXPERT_KEY")] = None,
    in_style: Annotated[
        str | None, typer.Option(help="have the base rewrite those answers: a server's address, or here")
    ] = None,
) -> None:
    """Fetch the models and data sets of the hub that a study names, so that it runs without a network."""
    from retain_core.commands import prefetch_lines

    for line in prefetch_lines(study, pin, experts, expert_model, in_style):
        print(line, flush=True)


@app.command()
def rehearse(
    study: StudyFile,
    home: Annotated[Path | None, typer.Option(help="keep everything in this folder; default: a temporary one")] = None,
    rows: Annotated[Path | None, typer.Option(help="raw rows to take, <data set>/<split>.jsonl; default: made here")] = None,
) -> None:
    """Run a study once through, small and without the hub: models and data are made here, everything else is the real code."""
    from retain_core.rehearse.run import rehearse as run_rehearsal

    run_rehearsal(study, home, lambda line: print(line, flush=True), rows)


@app.command()
def up(
    host: Annotated[str, typer.Option(help="address to listen on; nothing asks who connects")] = "127.0.0.1",
    prefect_port: Annotated[int, typer.Option(help="port of Prefect's server")] = 4200,
    mlflow_port: Annotated[int, typer.Option(help="port of MLflow's server")] = 5000,
) -> None:
    """Run Prefect's server, workers and deployments and MLflow's UI on this machine, until Ctrl-C."""
    from flows.up import up as run_up

    raise typer.Exit(run_up(host, prefect_port, mlflow_port))


@app.command()
def doctor() -> None:
    """Say what is wrong with this set-up and how to mend it; changes nothing. Exit code 1 when something is."""
    from retain_core.doctor import doctor as examine

    raise typer.Exit(examine(print))


@app.command()
def gc(
    delete: Annotated[bool, typer.Option("--delete", help="remove it; without this nothing is changed")] = False,
    every: Annotated[bool, typer.Option("--all", help="a line for each thing instead of one for each sort")] = False,
) -> None:
    """Show what nothing in the home needs any more, with sizes and ages, and remove it when told."""
    from retain_core.commands import gc_text

    print(gc_text(delete, every))


@app.command()
def gate(
    base: Annotated[
        str, typer.Argument(help="a study file, or the base's answers as `retain compare` takes them", metavar="A")
    ],
    model: Annotated[str, typer.Argument(help="folder or hub id for a study file, else the model's answers", metavar="B")],
    margin: Annotated[
        float | None, typer.Option(help="drop in points that would not matter; default: the study's, or 2")
    ] = None,
    metric: Metric = None,
    cluster: Cluster = None,
    form: Annotated[str, typer.Option("--format", help="table, json or markdown")] = "table",
) -> None:
    """May model B replace its base A? Exit code 0 ALLOW, 3 REJECT, 4 INCONCLUSIVE; 1 it failed, 2 the input is wrong."""
    from retain_core.gate.command import gate_text

    text, code = gate_text(base, model, margin, metric or [], cluster, form)
    print(text)
    raise typer.Exit(code)


@app.command()
def watch(file: Annotated[Path, typer.Argument(help="what to watch, and who is told", metavar="WATCH.yaml")]) -> None:
    """Judge the checkpoints that are new in a folder, on the hub or in MLflow's registry; exit codes as of `gate`."""
    from flows.commands import watch_once

    raise typer.Exit(watch_once(file))


def main() -> None:
    """Entry point."""
    from flows.entry import guarded

    guarded(app)


if __name__ == "__main__":
    main()
