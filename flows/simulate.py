"""The simulation flow: forward against reverse KL as published, and the sweep that shows where the conclusion ends."""

from __future__ import annotations

from prefect import flow

from tasks import simulation


@flow(name="simulate", flow_run_name="simulate {seeds} seeds of stream {seed}")
def simulate(seeds: int = 100, sweep_seeds: int = 20, seed: int = 0) -> None:
    """Run both and show them as artifacts; the sweep's CSV and chart lie in the home's reports/simulate."""
    published = simulation.published_setting(seeds, seed)
    swept = simulation.sweep(sweep_seeds, seed)
    simulation.show(published, swept)
