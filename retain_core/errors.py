"""Errors that a user should read as one sentence, with the exit code of the command line."""

from __future__ import annotations

import errno

NO_MEMORY = (
    "the accelerator's memory is full; let fewer arms share it (`RETAIN_ARMS_PER_DEVICE`) or make passes smaller "
    "(`training: {micro_batch: ...}`, `evaluation: {batch_tokens: ...}`) and run again: what is finished is kept"
)
FULL = "the disk is full; free some space (`retain gc` shows what can go) and run again: what is finished is kept"


_NO_ROOM = ("No space left on device", "database or disk is full")
"""In the words of the system and of SQLite."""


LONGEST = 1500
"""Characters of a message: what a file says may be of any length, and is quoted."""


class RetainError(Exception):
    """Something failed while running. Exit code 1."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        cut = len(message) > LONGEST
        super().__init__(f"{message[: LONGEST // 2]} … {message[-LONGEST // 2 :]}" if cut else message)


class ArmsFailedError(RetainError):
    """Some arms failed; everything else of the study is done and reported."""


class InputError(RetainError):
    """The user's input is wrong: the message says what, where, and what to do. Exit code 2."""

    exit_code = 2


def disk_is_full(error: BaseException) -> bool:
    """Whether an error, or one that it came from, says that there is no room: libraries wrap it in errors of their own."""
    seen: BaseException | None = error
    while seen is not None:
        number = getattr(seen, "errno", None)
        if number in (errno.ENOSPC, errno.EDQUOT) or any(words in str(seen) for words in _NO_ROOM):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def told(error: BaseException) -> str:
    """What a user is told of an error, which may be any: a sentence with the mend where that is known."""
    if disk_is_full(error):
        return FULL
    # torch raises OutOfMemoryError, or where the driver itself has nothing left AcceleratorError.
    if type(error).__name__ == "OutOfMemoryError" or "CUDA error: out of memory" in str(error):
        return NO_MEMORY
    return str(error) if isinstance(error, RetainError) else f"{type(error).__name__}: {error}"
