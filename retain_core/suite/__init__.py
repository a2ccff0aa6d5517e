"""The general suite: benchmarks of lm-eval that a study names as lm-eval does."""
