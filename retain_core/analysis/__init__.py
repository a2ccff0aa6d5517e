"""From a study's stored per-item scores to intervals, contrasts, matched points and the KL law.

Nothing here writes: the warehouse stores what comes back. Every figure is paired with the base by item.
"""
