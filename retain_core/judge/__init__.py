"""Answers that a judge model reads: whether a harmful request was refused and a harmless one answered."""
