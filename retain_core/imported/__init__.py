"""Evaluations made elsewhere: reading lm-eval's sample files, and comparing two models without training any."""
