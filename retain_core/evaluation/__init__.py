"""Evaluating one checkpoint: benchmarks through lm-eval, exact scores, answers in Parquet."""
