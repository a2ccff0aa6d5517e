"""Files and code that a study names: found beside the study file, known by their content.

A study is read once; what it names is sealed there and then with SHA-256. A process that opens a file later checks the
seal, so a result is never filed under the content of another day.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import symtable
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from retain_core.canonical import digest
from retain_core.errors import InputError, RetainError
from retain_core.store import sha256_of

Row = dict[str, Any]
PREPARE = "retain_prepare"
"""A function that a module may have: called without arguments whenever one of its functions is loaded."""


class Sealed(BaseModel):
    """Something of the user's with the content that it had when the study was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Sealed):
    """A file, and others whose content counts with it."""

    files: dict[str, str]
    """Absolute path -> SHA-256; the file that the study names comes first."""
    content: str
    """One hash of all of them: what keys are made of. Where the files lie is no part of it."""

    @property
    def path(self) -> Path:
        """The file that the study names."""
        return Path(next(iter(self.files)))

    def checked(self) -> Path:
        """The file that the study names. Raises RetainError when one of the files is not what it was."""
        for name, sha in self.files.items():
            if not Path(name).is_file() or sha256_of(Path(name)) != sha:
                raise RetainError(f"{name} has changed since the study was read; run the study again")
        return self.path


class Code(Sealed):
    """A function in a Python module."""

    module: str
    function: str
    source: Source
    folder: str | None = None
    """The study file's folder, where the module lies below it; None for an installed module."""

    def identity(self) -> dict[str, str]:
        """What keys are made of: the function and the content of its module's file, not of what that imports."""
        return {"function": self.function, "content": self.source.content}

    def load(self) -> Any:
        """Import the module and return the function. Raises RetainError with one sentence."""
        path = self.source.checked()
        if self.folder and self.folder not in sys.path:
            sys.path.append(self.folder)
        keep, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        try:
            module = importlib.import_module(self.module)
        except Exception as error:
            raise RetainError(f"importing {path} raised {type(error).__name__}: {error}") from error
        finally:
            sys.dont_write_bytecode = keep
        found = Path(module.__file__ or "").resolve()
        if found != path.resolve():
            raise RetainError(f"{self.module} is also the name of {found}, which hides {path}; rename yours")
        if not hasattr(module, self.function):
            raise RetainError(f"{path} has no function {self.function!r}")
        # What takes long the first time is done here, and not while the time of an answer is measured.
        getattr(module, PREPARE, lambda: None)()
        return getattr(module, self.function)


def seal(paths: Iterable[Path]) -> Source:
    """Files by content, the one that is named first. Raises InputError for one that cannot be read."""
    files = [path.absolute() for path in paths]
    try:
        sealed = {str(path): sha256_of(path) for path in files}
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from None
    if len(sealed) == 1:
        return Source(files=sealed, content=next(iter(sealed.values())))
    # Folders change the place of a study, not its content, so only the files' own names count.
    return Source(files=sealed, content=digest([[Path(path).name, sha] for path, sha in sealed.items()], 64))


def locate(what: str, reference: str, folder: Path, group: str) -> Code:
    """`module:function`, or the name of an entry point in a group, as code; nothing is imported.

    The module is looked for below `folder` first, then among what is installed. Raises InputError with one sentence that
    begins with `what`.
    """
    if ":" not in reference:
        points = importlib.metadata.entry_points(group=group, name=reference)
        if not points:
            raise InputError(
                f"{what}: {reference!r} is no entry point in the group {group}; give `module:function`, such as my_code:right"
            )
        reference = next(iter(points)).value
    name, _, function = reference.partition(":")
    if not all(part.isidentifier() for part in [*name.split("."), function]):
        raise InputError(f"{what}: {reference!r} does not read `module:function`, such as my_code:right")
    folder = folder.absolute()
    local = module_file(name, [str(folder)])
    path = local or module_file(name, None)
    if path is None:
        raise InputError(f"{what}: there is no module {name!r} in {folder}, and none of that name is installed")
    _refuse_missing(what, path, function)
    return Code(module=name, function=function, source=seal([path]), folder=str(folder) if local else None)


def module_file(name: str, where: list[str] | None) -> Path | None:
    """The source file of a dotted module below some folders (None: wherever Python looks); imports nothing."""
    first, *rest = name.split(".")
    spec = importlib.machinery.PathFinder.find_spec(first, where) if where else importlib.util.find_spec(first)
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(part, list(spec.submodule_search_locations))
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _refuse_missing(what: str, path: Path, function: str) -> None:
    try:
        text = path.read_text(encoding="utf-8")
        names = symtable.symtable(text, str(path), "exec")
    except SyntaxError as error:
        raise InputError(f"{path}:{error.lineno}: not valid Python: {error.msg}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    known = {symbol.get_name() for symbol in names.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    if function not in known and "import *" not in text:
        raise InputError(f"{what}: {path} has no function {function!r}")
