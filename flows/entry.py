"""How a command ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from retain_core.errors import FULL, RetainError, disk_is_full
from retain_core.redact import redact


def guarded(command: Callable[[], object]) -> None:
    """Run a command: errors that a user can mend are one sentence on stderr, with exit code 1 or 2.

    No library that it loads reports its use: Prefect's, MLflow's and the hub's understand this one word of this one variable.
    """
    os.environ.setdefault("DO_NOT_TRACK", "true")
    try:
        command()
    except RetainError as error:
        print(f"retain: {redact(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
    except Exception as error:
        if not disk_is_full(error):
            raise
        print(f"retain: {FULL}", file=sys.stderr)
        sys.exit(RetainError.exit_code)
