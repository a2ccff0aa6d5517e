"""Public data sets as targets and retention benchmarks: what the published study trained on and was scored with."""
