"""Orchestration only: the experiment's story, top to bottom."""
