"""Rehearsal: a whole study through the same code, with small models and data of our own in place of the hub's."""
