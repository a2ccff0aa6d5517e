"""Evaluations made elsewhere: reading the sample files that lm-eval wrote, and keeping them."""
