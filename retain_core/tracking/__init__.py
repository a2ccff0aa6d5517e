"""Logging to MLflow: a study is an experiment and its parent run, an arm a child run, a checkpoint a LoggedModel.

`study` says what is logged in which order, `content` reads it from the warehouse, `dials` chooses the parameters,
`note` writes the descriptions, and `runs` is all that speaks to MLflow.
"""

from retain_core.tracking.runs import MlflowAwayError
from retain_core.tracking.study import log_study, prepare

__all__ = ["MlflowAwayError", "log_study", "prepare"]
