"""The simulations as Prefect tasks: the mixture, and the parity toy."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from retain_core.parity.text import parity_text
from retain_core.simulate.text import simulate_text


@task(cache_policy=NO_CACHE, task_run_name="published setting")
def published_setting(seeds: int, seed: int) -> str:
    """Every run of the published setting beside the printed figures, in Markdown."""
    return simulate_text(seeds, seed, sweep=False, form="markdown")


@task(cache_policy=NO_CACHE, task_run_name="sweep")
def sweep(seeds: int, seed: int) -> str:
    """The sweep in Markdown; its CSV and chart go to the home's reports."""
    return simulate_text(seeds, seed, sweep=True, form="markdown")


@task(cache_policy=NO_CACHE, task_run_name="show in prefect")
def show(published: str, swept: str) -> None:
    """Both as artifacts of the flow run."""
    create_markdown_artifact(published, key="simulate-published", description="The published setting")
    create_markdown_artifact(swept, key="simulate-sweep", description="Where the conclusion ends")


@task(cache_policy=NO_CACHE, task_run_name="parity toy")
def parity(seeds: int, seed: int) -> str:
    """The law and the drops at matched gain in Markdown; all points and the chart go to the home's reports."""
    return parity_text(seeds, seed, form="markdown")


@task(cache_policy=NO_CACHE, task_run_name="show parity in prefect")
def show_parity(found: str) -> None:
    """It as an artifact of the flow run."""
    create_markdown_artifact(found, key="simulate-parity", description="The parity toy")
