"""The lab: a generated world small enough to measure forgetting on a laptop.

`spec` holds its dials, `world` the items, `countdown` the target and its verifier, `experts` the
training data, `vocabulary` the tokenizer and `base` the base model that everything starts from.
"""
