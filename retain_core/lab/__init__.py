"""The lab: a generated world small enough to measure forgetting on a laptop.

`spec` holds its dials, `world` the items, `countdown`, `new_facts` and `new_format` the targets' answers, `targets` their
training data, `vocabulary` the tokenizer and `base` the base model that everything starts from.
"""
