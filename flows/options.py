"""Options that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

Form = Annotated[str, typer.Option("--format", help="table, csv, json or markdown")]
Cluster = Annotated[str | None, typer.Option("--cluster", help="field of the documents that says which items are alike")]
Metric = Annotated[list[str] | None, typer.Option("--metric", help="benchmark=metric; can be given several times")]
