"""Comparing what exists already: two models answer by answer, or two studies method by method. Nothing is trained."""
