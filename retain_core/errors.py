"""Errors that a user should read as one sentence, with the exit code of the command line."""


class RetainError(Exception):
    """Something failed while running. Exit code 1."""

    exit_code = 1


class ArmsFailedError(RetainError):
    """Some arms failed; everything else of the study is done and reported."""


class InputError(RetainError):
    """The user's input is wrong: the message says what, where, and what to do. Exit code 2."""

    exit_code = 2
