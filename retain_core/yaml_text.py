"""YAML that a user wrote, as a value that JSON could say too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from retain_core.errors import InputError
from retain_core.redact import secret_in


def read_text(path: str | Path, what: str, instead: str) -> str:
    """The text of a user's file, called `what`. Raises InputError, also when it holds a secret: `instead` says what to do."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read the {what} {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"the {what} {path} is not UTF-8 text") from None
    if name := secret_in(text):
        raise InputError(f"{path}: holds the value of the environment variable {name}; {instead}")
    return text


def parse_yaml(path: str | Path, text: str, loader: type[yaml.SafeLoader]) -> tuple[yaml.Node | None, Any]:
    """(the nodes with their lines, the value) of a YAML text that could be said in JSON too. Raises InputError.

    Dates, half surrogates and the character 0 have no place in names, paths and keys.
    """
    try:
        tree = yaml.compose(text, Loader=loader)
        raw = yaml.load(text, Loader=loader)  # noqa: S506
        plain = json.dumps(raw, ensure_ascii=False)
        plain.encode("utf-8")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        said = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"{path}{line}: not valid YAML: {said}") from None
    except RecursionError:
        raise InputError(f"{path}: not valid YAML: nested too deeply") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{path}: says something that is no text, number, list or mapping: {str(error).splitlines()[0]}"
        ) from None
    if "\\u0000" in plain:
        raise InputError(f"{path}: holds the character 0")
    return tree, raw
