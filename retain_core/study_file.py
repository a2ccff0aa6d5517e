"""Reading a study file: YAML in, a checked study out, with errors that name file, line and field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from retain_core.canonical import canonical_json
from retain_core.errors import InputError
from retain_core.evaluation.generation import Generation
from retain_core.evaluation.size import EvaluationSize
from retain_core.judge.benchmark import Judge
from retain_core.methods import Method
from retain_core.own.study import seal_study
from retain_core.own.target import TargetFiles
from retain_core.study import Base, Budget, Cross, Data, Execution, Primary, Retention, Study, unknown
from retain_core.training.size import TrainingSize
from retain_core.yaml_text import parse_yaml, read_text

Where = tuple[int | str, ...]
"""The place of a value in a study file: keys and positions, outermost first."""
Checked = TypeVar("Checked", bound=BaseModel)

FILLED_IN = ("own", "target_files")
"""Keys of a stored study that no study file has."""


def load_study(path: str | Path) -> Study:
    """Read a study file. Raises InputError with one sentence: file, line, field and what is wrong."""
    text = read_study(path)
    if "cross" in text.raw:
        raise InputError(f"{path} crosses several studies; where one study is asked for, give the file of one")
    return text.study(text.raw)


@dataclass(frozen=True)
class StudyText:
    """A study file as it was written, with the lines that errors name."""

    path: str | Path
    raw: dict[str, Any]
    tree: yaml.Node | None
    fetched: bool = True
    """False where public data need not be there yet."""

    def checked(self, model: type[Checked], raw: Any, written: Callable[[Where], Where] = lambda where: where) -> Checked:
        """`raw` as a model. Raises InputError; `written` maps the place of an error to where it was written."""
        try:
            return model.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            where = written(first["loc"])
            more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
            raise self.refusal(where, _sentence(first, where) + more) from None

    def study(self, raw: Any, written: Callable[[Where], Where] = lambda where: where) -> Study:
        """`raw` as a study with what its own files hold now. Raises InputError."""
        for key in FILLED_IN:
            if key in raw:
                raise self.refusal((key,), unknown("key", key, _keys_at(())))
        study = self.checked(Study, raw, lambda where: written(_as_written(where)))
        try:
            canonical_json(study)
        except ValueError:
            raise self.refusal((), "a number is not finite, and none of it can be computed with") from None
        if not study.on_lab_target:
            self._refuse_unheard(raw["methods"])
        return study.model_copy(update={"own": seal_study(study, Path(self.path).parent, self.fetched)})

    def _refuse_unheard(self, methods: list[Any]) -> None:
        """Refuse dials that only a target of the lab listens to."""
        for number, entry in enumerate(methods):
            for dial, usual in (("prompts", "varied"), ("solution", None)):
                if isinstance(entry, dict) and entry.get(dial, usual) != usual:
                    raise self.refusal(
                        ("methods", number, dial),
                        f"{dial} {entry[dial]} needs a target of the lab; a row of yours has one prompt and one `answer`",
                    )

    def refusal(self, where: Where, sentence: str) -> InputError:
        """The error that says what is wrong at a place of the file."""
        field = ".".join(str(part) for part in where) or "study"
        return InputError(" ".join(f"{self.path}:{_line(self.tree, where)}: {field}: {sentence}".split()))


def read_study(path: str | Path, fetched: bool = True) -> StudyText:
    """Read a study file without checking what it says. Raises InputError when it is no YAML mapping.

    `fetched` is whether the public data that it names must be there when it is checked.
    """
    text = read_text(path, "study file", "studies are stored and shown, so let your code read the variable instead")
    tree, raw = parse_yaml(path, text, yaml.SafeLoader)
    if not isinstance(raw, dict):
        raise InputError(f"{path}: a study file is a mapping that begins with `study: <name>`")
    return StudyText(path, raw, tree, fetched)


def _as_written(where: Where) -> Where:
    return ("target", *where[1:]) if where[:1] == ("target_files",) else where


def _sentence(error: Any, where: Where) -> str:
    if error["type"] == "extra_forbidden":
        known = _keys_at(where[:-1])
        return unknown("key", str(where[-1]), known) if known else f"unknown key {str(where[-1])!r}"
    message = str(error["msg"]).removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def _keys_at(where: Where) -> list[str]:
    models: dict[str, type[BaseModel]] = {
        "base": Base, "retention": Retention, "methods": Method, "budget": Budget, "primary": Primary,
        "execution": Execution, "data": Data, "judge": Judge, "generation": Generation, "cross": Cross, "target": TargetFiles,
        "evaluation": EvaluationSize, "training": TrainingSize,
    }  # fmt: skip
    if where:
        model = models.get(str(where[0]))
        return list(model.model_fields) if model else []
    return [*(key for key in Study.model_fields if key not in FILLED_IN), "cross"]


def _line(tree: yaml.Node | None, where: Where) -> int:
    node, line = tree, 1
    for part in where:
        if isinstance(node, yaml.MappingNode):
            pairs = [(k, v) for k, v in node.value if k.value == part]
            if not pairs:
                break
            key, node = pairs[0]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
