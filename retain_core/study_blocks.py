"""The blocks of a study that are small models of their own: base, retention, budget, contrast, data, execution, cross."""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from retain_core.evaluation.benchmarks import BENCHMARKS, Benchmark
from retain_core.judge.benchmark import METRICS
from retain_core.lab.spec import PRESETS, LabSpec, lab_spec
from retain_core.public.catalogue import PUBLIC
from retain_core.public.convert import PublicSizes
from retain_core.public.fetch import Wanted
from retain_core.suite.catalogue import CATALOGUE


def unknown(what: str, name: str, known: list[str]) -> str:
    """`unknown <what> 'x'; did you mean 'y'?`, with the whole list when nothing is near."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return f"unknown {what} {name!r}; {hint}"


def known_benchmark(name: str) -> Benchmark:
    """The benchmark of that name. Raises ValueError with the nearest name."""
    if name not in BENCHMARKS:
        raise ValueError(unknown("benchmark", name, [*BENCHMARKS, *PUBLIC, *CATALOGUE]))
    return BENCHMARKS[name]


class Block(BaseModel):
    """A part of a study file: unknown keys are refused, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Base(Block):
    """The base model: a lab preset with its dials, a hub id, or a folder."""

    model: str
    revision: str | None = None
    seed: int | None = Field(None, description="lab: which draw of world and weights")
    habit: float | None = Field(None, description="lab: the support dial")
    format_share: float | None = Field(None, description="lab: the support dial of new_format")
    private_symbols: bool | None = Field(None, description="lab: the overlap dial")
    operands: int | None = Field(None, description="lab: how many numbers a countdown problem has")
    steps: bool | None = Field(None, description="lab: countdown is answered step by step (benchmark countdown_steps)")
    largest_number: int | None = Field(None, description="lab: countdown uses the numbers 1 to this")
    target_items: int | None = Field(None, description="lab: most held-out items of the target")
    updates: int | None = Field(None, description="lab: pre-training updates")

    @model_validator(mode="after")
    def _known(self) -> Base:
        if self.model.startswith("lab/"):
            if self.model.removeprefix("lab/") not in PRESETS:
                raise ValueError(unknown("lab base", self.model, [f"lab/{p}" for p in PRESETS]))
            self.lab()
        elif dials := self._dials():
            raise ValueError(f"{sorted(dials)[0]!r} is a dial of lab bases only, and {self.model} is none")
        return self

    def _dials(self) -> dict[str, Any]:
        return {k: v for k, v in self.model_dump(exclude={"model", "revision"}).items() if v is not None}

    def lab(self) -> LabSpec | None:
        """The lab spec of a lab base, None for any other."""
        if not self.model.startswith("lab/"):
            return None
        return lab_spec(self.model.removeprefix("lab/"), **self._dials())


class Retention(Block):
    """A benchmark that the study watches for loss."""

    benchmark: str
    metric: str | None = Field(None, description="default: the benchmark's primary metric")
    near: bool = Field(False, description="shares symbols or format with the target")
    yaml: str | None = Field(None, description="lm-eval YAML file of a benchmark of your own, relative to the study file")
    choices: int | None = Field(None, ge=2, description="with yaml: among how many answers a guesser would guess")
    cluster: str | None = Field(None, description="with yaml: field of the documents that says which items are alike")
    requests: str | None = Field(
        None, description="JSONL file of requests of your own whose answers the judge reads, relative to the study file"
    )
    longest_answer: PositiveInt | None = Field(None, le=10**6, description="with requests: tokens of an answer at most")
    revision: str | None = Field(None, description="general suite: revision of the data set on the hub")
    templates: int = Field(1, ge=1, le=3, description="general suite: in how many prompt templates every item is asked")
    unsafe_code: bool = Field(False, description="humaneval: programs that the model writes may be run on this machine")

    @property
    def sealed(self) -> bool:
        """It is none of the lab, and what it is made of is sealed when the study is read."""
        return self.yaml is not None or self.requests is not None or self.benchmark in CATALOGUE

    @model_validator(mode="after")
    def _known_metric(self) -> Retention:
        self._refuse_stray()
        if self.benchmark in CATALOGUE:
            return self
        if self.yaml is not None or self.requests is not None:
            if self.benchmark in BENCHMARKS or self.benchmark in PUBLIC:
                whose = "a benchmark of the lab" if self.benchmark in BENCHMARKS else "a public data set"
                raise ValueError(f"{self.benchmark} is {whose}; give yours another name")
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", self.benchmark):
                raise ValueError(f"{self.benchmark!r} is no name for a benchmark: letters, digits, _, . and - make one")
            return self
        metrics = self._metrics()
        if self.metric is not None and self.metric not in metrics:
            raise ValueError(unknown(f"metric of {self.benchmark}", self.metric, list(metrics)))
        return self

    def _metrics(self) -> tuple[str, ...]:
        """The metrics of a benchmark of the lab or of a public one."""
        if self.benchmark in PUBLIC:
            return METRICS if PUBLIC[self.benchmark].judged else ("acc", "lenient")
        return known_benchmark(self.benchmark).metrics

    @property
    def of_lab(self) -> bool:
        """Whether it is a benchmark of the lab."""
        return not self.sealed and self.benchmark in BENCHMARKS

    def _refuse_stray(self) -> None:
        """Refuse keys of one sort of benchmark on another."""
        suite = self.benchmark in CATALOGUE
        if suite and (self.yaml or self.requests):
            raise ValueError(f"{self.benchmark} is a benchmark of lm-eval; give yours another name")
        if self.yaml and self.requests:
            raise ValueError(
                "`yaml` is a benchmark that lm-eval scores, `requests` one that the judge scores; give one of them"
            )
        if self.yaml is None and (self.choices is not None or self.cluster is not None):
            raise ValueError("`choices` and `cluster` belong to a benchmark of your own (`yaml: path/to/it.yaml`)")
        if not suite and (self.revision is not None or self.templates != 1 or self.unsafe_code):
            raise ValueError(f"`revision`, `templates` and `unsafe_code` belong to {', '.join(CATALOGUE)}")
        if (self.requests is None) != (self.longest_answer is None):
            raise ValueError("`requests: file.jsonl` and `longest_answer: 512` (tokens) belong together")
        if self.requests is not None and self.metric not in (None, *METRICS):
            raise ValueError(unknown(f"metric of {self.benchmark}", str(self.metric), list(METRICS)))


class Budget(Block):
    """What every method may spend; matched over methods."""

    updates: PositiveInt = Field(160, le=10**9)
    sequences_per_update: PositiveInt = Field(64, le=10**9)


class Primary(Block):
    """The one contrast that is declared before training."""

    contrast: tuple[str, str]
    predict: Literal[">", "<"] = ">"
    at_gain: float | None = Field(None, description="compare at this gain")
    at: Literal["last"] | None = None
    looks: int = Field(1, ge=1, le=3, description="how often the contrast may be looked at while seeds are added")
    margin: float = Field(0.02, gt=0, description="differences below this do not matter (a fraction)")

    @model_validator(mode="after")
    def _one_point(self) -> Primary:
        if (self.at_gain is None) == (self.at is None):
            raise ValueError("say either `at_gain: 0.05` or `at: last`")
        return self


class Data(Block):
    """What is done about bad rows in the study's own files, and which public data are taken."""

    bad_rows: float = Field(0.0, ge=0, lt=1, description="share of a file's rows that may be left out; 0 refuses the first")
    revisions: dict[str, str] = Field(
        {}, description="public data set -> commit of the hub; `retain prefetch --pin` fills it in"
    )
    sizes: dict[str, PublicSizes] = Field({}, description="public data set -> train, items, where not as published")
    longest_answer: int | None = Field(None, ge=1, description="public data: tokens sampled at most; default 3000")
    max_length: PositiveInt | None = Field(
        None, description="tokens of a prompt with its answer at most, where that is less than the base reads"
    )

    @field_validator("revisions", "sizes")
    @classmethod
    def _of_public_data(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        for name in value:
            if name not in PUBLIC and not (name in CATALOGUE and info.field_name == "revisions"):
                raise ValueError(unknown("public data set", name, list(PUBLIC)))
        return value

    @field_validator("revisions")
    @classmethod
    def _no_paths(cls, value: dict[str, str]) -> dict[str, str]:
        for revision in value.values():
            if not re.fullmatch(r"[A-Za-z0-9][\w./-]*", revision) or ".." in revision:
                raise ValueError(f"{revision!r} is no revision of the hub")
        return value

    def wanted(self, name: str) -> Wanted:
        """A public data set as the study asks for it."""
        return Wanted(name, self.revisions.get(name), self.sizes.get(name))

    def said(self) -> dict[str, Any]:
        """For the hash of a study: what it says, without what it leaves as it is."""
        return {"bad_rows": self.bad_rows, **self.model_dump(mode="json", exclude={"bad_rows"}, exclude_defaults=True)}


class Execution(Block):
    """How arms are run here; changes what is measured by rounding at most."""

    threads_per_arm: PositiveInt = 1
    work_pool: str | None = None
    processes_per_arm: PositiveInt = Field(1, description="processes, each with its own GPU, that train an arm together")
    parallel: Literal["ddp", "fsdp", "zero2", "zero3"] = Field("ddp", description="how they share weights and optimizer")

    def unsaid(self) -> set[str]:
        """Settings that leave an arm what it was before there were such settings."""
        return {"processes_per_arm", "parallel"} if self.processes_per_arm == 1 else set()


class Cross(Block):
    """What a study file crosses: it stands for one study per combination (`retain_core.cross`)."""

    base: tuple[str, ...] | None = Field(None, min_length=1, description="models, the smaller size first")
    seed: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(None, min_length=1, description="seeds of the lab base")
    target: tuple[str, ...] | None = Field(None, min_length=1, description="targets, each in its own studies")

    @model_validator(mode="after")
    def _something_once(self) -> Cross:
        if not (self.base or self.seed or self.target):
            raise ValueError(f"name at least one of {', '.join(Cross.model_fields)}")
        for name in Cross.model_fields:
            values = getattr(self, name) or ()
            if len(set(values)) < len(values):
                raise ValueError(f"{name} says the same thing twice")
        return self
