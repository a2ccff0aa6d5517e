"""Thin Prefect tasks: one side effect each, one call into retain_core, a small reference back."""
