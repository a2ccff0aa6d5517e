"""The simulation flows: the mixture of two normals with its sweep, and the parity toy."""

from __future__ import annotations

from prefect import flow

from tasks import simulation


@flow(name="simulate", flow_run_name="simulate {seeds} seeds of stream {seed}")
def simulate(seeds: int = 100, sweep_seeds: int = 20, seed: int = 0) -> None:
    """Run both and show them as artifacts; the sweep's CSV and chart lie in the home's reports/simulate."""
    published = simulation.published_setting(seeds, seed)
    swept = simulation.sweep(sweep_seeds, seed)
    simulation.show(published, swept)


@flow(name="simulate-parity", flow_run_name="parity toy, {seeds} seeds of stream {seed}")
def simulate_parity(seeds: int = 10, seed: int = 0) -> None:
    """Run the parity toy and show it as an artifact; its CSV and chart lie in the home's reports/simulate."""
    simulation.show_parity(simulation.parity(seeds, seed))
