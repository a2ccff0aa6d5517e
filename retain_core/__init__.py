"""retain: what a fine-tuned language model gained, what it lost, and which ingredient did it.

The library behind the flows. Every number that retain prints is computed here; nothing here
imports Prefect. Heavy packages (torch, trl, lm_eval, mlflow) are imported only inside the
functions that use them, so that `import retain_core` stays cheap.
"""

__version__ = "0.1.0"
