"""Commands that only read what was measured; each imports what it needs only when it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.options import Cluster, Form, Metric

app = typer.Typer()


@app.command()
def status() -> None:
    """Show the studies of this home and how far they are."""
    from retain_core.commands import status_text

    print(status_text())


@app.command()
def report(name: Annotated[str, typer.Argument(help="name of a study", metavar="NAME")]) -> None:
    """Write the page of a study again from the warehouse and say where it is."""
    from retain_core.commands import report_path

    print(report_path(name))


@app.command()
def sql(
    query: Annotated[
        list[str],
        typer.Argument(help='a query, such as "FROM method_summary"; .tables; .schema, .schema NAME', metavar="QUERY"),
    ],
    form: Form = "table",
    output: Annotated[Path | None, typer.Option(help="write a file; its ending says how: .csv, .json, .md, .parquet")] = None,
) -> None:
    """Ask the warehouse a question (read-only); `.tables` lists what it holds, `.schema NAME` the columns of one relation."""
    from retain_core.commands import one_query, sql_text

    print(sql_text(one_query(query), form, output))


@app.command()
def hypotheses(form: Form = "table") -> None:
    """The ledger: every hypothesis study with its contrast and verdict, or that it was not run."""
    from retain_core.commands import hypotheses_text

    print(hypotheses_text(form))


@app.command()
def compare(
    a: Annotated[
        str, typer.Argument(help="lm-eval folder or file; or a checkpoint, an arm or a study of the home", metavar="A")
    ],
    b: Annotated[str, typer.Argument(help="the second model or study, in the same way", metavar="B")],
    metric: Metric = None,
    cluster: Cluster = None,
    flips: Annotated[int, typer.Option(min=0, help="print so many lost items with both answers")] = 0,
    page: Annotated[Path | None, typer.Option(help="write the comparison as a page, too: a file that ends in .html")] = None,
    form: Form = "table",
) -> None:
    """What did model B lose against model A, or how do two studies differ? From stored answers; nothing is trained or run."""
    from retain_core.compare.command import compare_text

    text, notes = compare_text(a, b, metric or [], cluster, flips, form, page)
    print(text)
    for note in notes:
        print(f"retain: {note}", file=sys.stderr)


@app.command()
def simulate(
    seeds: Annotated[int | None, typer.Option(help="how many; else 100, with --sweep 20, with --toy parity 10")] = None,
    seed: Annotated[int, typer.Option(help="the random stream that all seeds are drawn from")] = 0,
    sweep: Annotated[bool, typer.Option("--sweep", help="turn the dials until the conclusion ends; writes files")] = False,
    toy: Annotated[str, typer.Option("--toy", help="mixture, or parity: the toy of RL's Razor; writes files")] = "mixture",
    form: Form = "table",
) -> None:
    """Published simulations: forward against reverse KL on a mixture of two normals, or the law of forgetting on digits."""
    from retain_core.simulate.text import toy_text

    print(toy_text(toy, seeds, seed, sweep, form))
