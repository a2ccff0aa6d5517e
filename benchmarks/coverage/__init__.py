"""How often the intervals hold the truth, in worlds where it is known (measurement, section 10)."""
