"""A study: what to run, and what may stand together in it. Reading it from a file is `retain_core.study_file`."""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from retain_core.canonical import digest
from retain_core.evaluation.benchmarks import BENCHMARKS, Benchmark, own_benchmark, target_benchmark
from retain_core.evaluation.generation import TRANSFORMERS, Generation
from retain_core.evaluation.size import AS_THE_LAB, EvaluationSize
from retain_core.hub import is_commit, is_hub_id
from retain_core.judge.benchmark import METRICS, Judge, JudgedBenchmark
from retain_core.lab.spec import PRESETS, LabSpec, lab_spec
from retain_core.methods import CONTROLS, NAMED, WITHOUT_LAB, Method, check_rates, check_seeds, control, interpolated
from retain_core.own.study import Own
from retain_core.own.target import TargetFiles
from retain_core.public.catalogue import LONGEST_ANSWER, PUBLIC, TRAINABLE
from retain_core.public.convert import PublicSizes
from retain_core.public.fetch import Wanted
from retain_core.suite.catalogue import CATALOGUE
from retain_core.training.size import TrainingSize

CHECKPOINT_RATIO = 2.5
"""How many times later a checkpoint is than the one before: four reach back to a sixteenth of the training."""


_LATER_KEYS = {"requests": None, "longest_answer": None, "revision": None, "templates": 1, "unsafe_code": False}
"""Keys of a retention benchmark that came later: left at this they change no hash of a study."""


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


def _verified(name: str) -> str:
    if name in TRAINABLE:
        return name
    if name in PUBLIC:
        raise ValueError(f"{name} is only evaluated; public targets are {', '.join(TRAINABLE)}")
    if known_benchmark(name).verifier is None:
        has = [known for known, b in BENCHMARKS.items() if b.verifier]
        targets = ", ".join([*has, *TRAINABLE])
        raise ValueError(f"{name} has no verifier, so nothing can be rewarded on it; targets are {targets}")
    return name


def _refuse_doubles(labels: list[str]) -> None:
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(f"two methods or controls are labelled {label!r}; give one of them another `label:`")


def _benchmark_by_name(entry: Any) -> Any:
    return {"benchmark": entry} if isinstance(entry, str) else entry


def _spell_out(entry: Any) -> Any:
    if isinstance(entry, Method):
        return entry
    if isinstance(entry, str):
        if entry not in NAMED:
            raise ValueError(unknown("method", entry, list(NAMED)))
        return {"label": entry, **NAMED[entry]}
    if isinstance(entry, dict) and isinstance(algorithm := entry.get("algorithm"), str):
        algorithms = list(Method.model_fields["algorithm"].annotation.__args__)  # type: ignore[union-attr]
        if algorithm not in algorithms:
            raise ValueError(unknown("algorithm", algorithm, algorithms))
    return entry


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Base(_Model):
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


class Retention(_Model):
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


class Budget(_Model):
    """What every method may spend; matched over methods."""

    updates: PositiveInt = Field(160, le=10**9)
    sequences_per_update: PositiveInt = Field(64, le=10**9)


class Primary(_Model):
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


class Data(_Model):
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


class Execution(_Model):
    """How arms are run here; changes what is measured by rounding at most."""

    threads_per_arm: PositiveInt = 1
    work_pool: str | None = None
    processes_per_arm: PositiveInt = Field(1, description="processes, each with its own GPU, that train an arm together")
    parallel: Literal["ddp", "fsdp", "zero2", "zero3"] = Field("ddp", description="how they share weights and optimizer")

    def unsaid(self) -> set[str]:
        """Settings that leave an arm what it was before there were such settings."""
        return {"processes_per_arm", "parallel"} if self.processes_per_arm == 1 else set()


class Cross(_Model):
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


class Study(_Model):
    """A study: one base, one target, methods x learning rates x seeds, and what must not be lost."""

    study: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="name of the study")
    base: Base
    target_files: TargetFiles | None = Field(
        None, title="Target Files", description="a target of your own: what stands under `target` as a mapping"
    )
    target: str = Field(description="name of the target; a mapping with files and a verifier is a target of your own")
    then: tuple[str, ...] = Field(
        (), description="targets that every trained method goes on to learn, one after the other, each with the whole budget"
    )
    retention: tuple[Annotated[Retention, BeforeValidator(_benchmark_by_name, json_schema_input_type=str | Retention)], ...] = (
        Field(min_length=1)
    )
    probes: tuple[str, ...] = Field((), description="loss-type benchmarks, reported beside and never averaged into drop")
    methods: tuple[Annotated[Method, BeforeValidator(_spell_out, json_schema_input_type=str | Method)], ...] = Field(
        min_length=1
    )
    controls: tuple[str, ...] = Field(tuple(CONTROLS), description="arms whose outcome is known beforehand; default all")
    learning_rates: tuple[float, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(min_length=1)
    budget: Budget = Budget()
    checkpoints: PositiveInt = Field(4, le=1000, description="per arm, log-spaced, the last always")
    interpolate: tuple[float, ...] = Field(
        (), description="blend every method's last checkpoint with the base: shares of the checkpoint between 0 and 1"
    )
    primary: Primary | None = Field(None, title="Primary", description="the contrast that is declared before training")
    keep: Literal["last", "all", "none"] = Field("last", description="weights on disk after evaluation; answers always stay")
    execution: Execution = Execution()
    training: TrainingSize = Field(
        TrainingSize(), title="Training", description="how trainings are fitted to the accelerator: precision, micro-batches"
    )
    evaluation: EvaluationSize = Field(
        AS_THE_LAB, description="how evaluations are fitted to the accelerator: precision, tokens of a pass"
    )
    data: Data = Field(Data(), description="bad rows in the study's own files")
    judge: Judge | None = Field(
        None, title="Judge", description="the model that reads answers to harmful and harmless requests"
    )
    generation: Generation = Field(TRANSFORMERS, description="the backend that checkpoints are asked through")
    own: SkipJsonSchema[Own] = Field(Own(), description="filled in: what the study's own files held when it was read")

    @model_validator(mode="before")
    @classmethod
    def _target_by_files(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and isinstance(raw.get("target"), str) and raw["target"] in PUBLIC:
            return {"controls": list(WITHOUT_LAB), **raw}
        if not isinstance(raw, dict) or not isinstance(raw.get("target"), dict):
            return raw
        controls = {"controls": raw.get("controls", list(WITHOUT_LAB))}
        return {**raw, **controls, "target_files": raw["target"], "target": raw["target"].get("name")}

    @field_validator("base", mode="before", json_schema_input_type=str | Base)
    @classmethod
    def _base_by_name(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value

    @field_validator("methods")
    @classmethod
    def _labels_differ(cls, value: tuple[Method, ...]) -> tuple[Method, ...]:
        _refuse_doubles([m.label for m in value])
        return value

    @field_validator("target")
    @classmethod
    def _has_verifier(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("target_files", True) is not None:
            if value in BENCHMARKS or value in PUBLIC:
                whose = "a benchmark of the lab" if value in BENCHMARKS else "a public data set"
                raise ValueError(f"{value} is {whose}; give your target another name")
            return value
        return _verified(value)

    @field_validator("then")
    @classmethod
    def _later_targets_have_verifiers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name in PUBLIC:
                raise ValueError(f"a sequence (`then`) is one of targets of the lab, and {name} is public data")
        return tuple(map(_verified, value))

    @field_validator("controls")
    @classmethod
    def _known_controls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in CONTROLS:
                raise ValueError(unknown("control", name, list(CONTROLS)))
        return value

    @field_validator("probes")
    @classmethod
    def _known_probes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if known_benchmark(name).role != "probe":
                raise ValueError(f"{name} is a benchmark, not a loss probe; list it under retention")
        return value

    @field_validator("learning_rates")
    @classmethod
    def _rates(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        return check_rates(value)

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return check_seeds(value)

    @field_validator("interpolate")
    @classmethod
    def _between_the_ends(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < alpha < 1 for alpha in value):
            raise ValueError("an alpha lies between 0 (the base) and 1 (the checkpoint), both of which are evaluated anyway")
        if len(set(value)) < len(value):
            raise ValueError("the same alpha is listed twice")
        return tuple(sorted(value))

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        labels = [m.label for m in self.all_methods()]
        _refuse_doubles(labels)
        self._refuse_without_lab()
        watched = [r.benchmark for r in self.retention]
        for target in self.targets():
            if target in watched:
                raise ValueError(f"{target} is a target; it cannot be a retention benchmark too")
            if self.targets().count(target) > 1:
                raise ValueError(f"{target} is learned twice; a sequence (`then`) takes each target once")
        if self.then:
            self._refuse_in_a_sequence()
        if lab := self.base.lab():
            unknown_to_it = "countdown" if lab.steps else "countdown_steps"
            if unknown_to_it in [*self.targets(), *watched]:
                steps = "answers countdown in steps only" if lab.steps else "needs a base with `steps: true`, such as lab/large"
                raise ValueError(f"{unknown_to_it}: {self.base.model} {steps}" if lab.steps else f"{unknown_to_it} {steps}")
        if self.generation.backend == "http":
            self._refuse_drawn(watched)
        if self.data.max_length is not None and self.base.lab() is not None:
            raise ValueError("data.max_length is for a base that is none of the lab's, which read 64 tokens and refuse more")
        for name in watched:
            if name in PUBLIC and PUBLIC[name].judged and self.judge is None:
                raise ValueError(f"{name} is scored by a judge; name one with `judge: {{model: allenai/wildguard}}`")
        for name in watched:
            if watched.count(name) > 1:
                raise ValueError(f"retention lists {name} twice")
            if name in BENCHMARKS and BENCHMARKS[name].role == "probe":
                raise ValueError(f"{name} is a loss probe; list it under probes")
        blended = self.interpolated()
        for label in labels:
            if label in blended:
                raise ValueError(
                    f"{label!r} is what `interpolate` calls the blends of {blended[label]}; give the method another label"
                )
        if self.primary:
            for label in self.primary.contrast:
                if not blended and label in map(interpolated, labels):
                    raise ValueError(f"primary.contrast names {label}, which needs `interpolate: [0.25, 0.5, 0.75]`")
                if label not in [*labels, *blended]:
                    raise ValueError(unknown("method in primary.contrast", label, [*labels, *blended]))
                if label in blended and self.primary.at:
                    raise ValueError(f"{label} ends in {blended[label]} itself, so compare it at a gain (`at_gain: 0.05`)")
        for method in self.methods:
            unit, why = method.unit()
            if self.budget.sequences_per_update % unit:
                raise ValueError(
                    f"{method.label}: sequences_per_update ({self.budget.sequences_per_update}) "
                    f"must be a multiple of {why} ({unit})"
                )
        self._refuse_unequal_shares()
        self._refuse_unequal_parts()
        return self

    def _refuse_unequal_shares(self) -> None:
        """Processes that train together need shares of every batch that are equally large."""
        processes, size = self.execution.processes_per_arm, self.budget.sequences_per_update
        for method in self.methods:
            of_target = size - round(method.replay * size)
            shared = of_target // 2 if method.algorithm in ("dpo", "simpo") else of_target
            if size % processes or shared % processes:
                what = "pairs" if method.algorithm in ("dpo", "simpo") else "sequences of the target"
                raise ValueError(
                    f"{method.label}: {shared} {what} an update do not divide among {processes} processes "
                    "(execution.processes_per_arm)"
                )

    def _refuse_unequal_parts(self) -> None:
        """Micro-batches of the methods that sample, or learn from pairs, are equally large."""
        if self.training.card is not None and self.base.lab() is not None:
            raise ValueError("training.card fits models that are not of the lab to a card; those of the lab fit on any")
        if (micro := self.training.micro_batch) is None:
            return
        for method in self.methods:
            pairs = method.algorithm in ("dpo", "simpo")
            batch = self.budget.sequences_per_update // self.execution.processes_per_arm // (2 if pairs else 1)
            if (pairs or "group_size" in method.config()) and micro < batch and batch % micro:
                what = "pairs" if pairs else "samples"
                raise ValueError(f"{method.label}: training.micro_batch ({micro}) must divide the {batch} {what} of an update")

    def _refuse_drawn(self, watched: list[str]) -> None:
        """A server draws from a random stream of its own."""
        for name in watched:
            if name in BENCHMARKS and BENCHMARKS[name].samples > 1:
                raise ValueError(f"{name} is drawn from this process's random stream, which `backend: http` has no part in")

    def _refuse_in_a_sequence(self) -> None:
        if not self.on_lab_target:
            whose = "your own" if self.target_files else "public data"
            raise ValueError(f"a sequence (`then`) is one of targets of the lab, and {self.target} is {whose}")
        if self.primary and self.primary.at_gain is not None:
            raise ValueError("gain is that on the first target, so compare a sequence (`then`) where it ends: `at: last`")
        for method in self.methods:
            if method.traces_of is not None:
                raise ValueError(f"{method.label}: traces are those of one target, so no sequence (`then`) can imitate them")

    def all_methods(self) -> list[Method]:
        """The methods, then the controls as methods."""
        harm = self.harmed() if "planted_harm" in self.controls else ""
        answers = self.own.target is None or self.own.target.answers
        return [*self.methods, *(control(name, self.learning_rates, self.seeds, harm, answers) for name in self.controls)]

    def interpolated(self) -> dict[str, str]:
        """Label of the blends -> method whose last checkpoints are blended with the base: all that are trained."""
        trained = [m.label for m in self.methods if m.algorithm != "external"]
        return {interpolated(label): label for label in trained} if self.interpolate else {}

    def harmed(self) -> str:
        """The lab benchmark on which the planted harm is planted: the first that is far from the target, or the first.

        Raises ValueError where the study watches none.
        """
        lab = [r for r in self.retention if r.of_lab]
        if not lab:
            raise ValueError("planted_harm teaches wrong answers to a retention benchmark of the lab, and there is none")
        return next((r.benchmark for r in lab if not r.near), lab[0].benchmark)

    def _refuse_without_lab(self) -> None:
        """Refuse what only a target of the lab can do."""
        if self.on_lab_target:
            return
        for name in self.controls:
            if name not in WITHOUT_LAB:
                raise ValueError(f"control {name} needs a target of the lab; yours can have {', '.join(WITHOUT_LAB)}")
        if self.target_files is None:
            self._refuse_on_public()
            return
        for method in self.methods:
            if method.algorithm == "sft" and method.expert not in ("off_style", "lowest_kl", "traces"):
                raise ValueError(
                    f"{method.label}: expert {method.expert} needs a target of the lab; a target of your own has one expert, "
                    "the `answer` of its rows (leave `expert` out)"
                )
            replays, along = method.replay > 0, method.kl > 0 and method.kl_prompts == "retention"
            if (replays or along) and self.target_files.retention is None:
                dial = "replay" if replays else "kl_prompts: retention"
                raise ValueError(f"{method.label}: {dial} needs text to retain; give the target `retention: text.jsonl`")

    def _refuse_on_public(self) -> None:
        """Refuse what a public target has no text for."""
        known = ("off_style", "in_style", "traces")
        for method in self.methods:
            if method.algorithm == "sft" and method.expert not in known:
                raise ValueError(
                    f"{method.label}: expert {method.expert} is not to be had on {self.target}, where an expert is one of "
                    f"{', '.join(known)}"
                )
            if method.replay > 0 or (method.kl > 0 and method.kl_prompts == "retention"):
                dial = "replay" if method.replay > 0 else "kl_prompts: retention"
                raise ValueError(f"{method.label}: {dial} needs text to retain, which {self.target} does not bring")

    @property
    def on_lab_target(self) -> bool:
        """Whether the target is one of the lab."""
        return self.target_files is None and self.target not in PUBLIC

    def public_names(self) -> list[str]:
        """The public data sets that the study takes: its target, then what it must not lose."""
        named = [self.target] if self.target_files is None else []
        return [n for n in [*named, *(r.benchmark for r in self.retention if r.yaml is None)] if n in PUBLIC]

    def base_name(self) -> str:
        """A short name for what the study says of its base."""
        return digest(self.base.model_dump(mode="json"), 8)

    def unpinned(self) -> list[str]:
        """What of the hub is named without the commit that is meant, in words."""
        loose = [f"{what} {model}" for what, model, revision in self.hub_models() if not is_commit(revision)]
        pins = {
            r.benchmark: r.revision or self.data.revisions.get(r.benchmark) for r in self.retention if r.benchmark in CATALOGUE
        }
        pins |= {name: self.data.revisions.get(name) for name in self.public_names()}
        return loose + [f"data {name}" for name, revision in pins.items() if not is_commit(revision)]

    def names_the_hub(self) -> bool:
        """Whether anything comes from the hub."""
        suite = any(r.benchmark in CATALOGUE for r in self.retention)
        return bool(self.public_names() or self.hub_models() or suite)

    def hub_models(self) -> list[tuple[str, str, str | None]]:
        """(`base`, `judge` or which method, model, revision) of every model of the hub that the study names."""
        named = [("base", self.base.model, self.base.revision)] if self.base.lab() is None else []
        named += [("judge", self.judge.model, self.judge.revision)] if self.judge else []
        named += [(f"method {m.label}", str(m.model), m.revision) for m in self.methods if m.algorithm == "external"]
        return [one for one in named if is_hub_id(one[1])]

    def targets(self) -> tuple[str, ...]:
        """The targets in the order in which they are learned; one in most studies."""
        return (self.target, *self.then)

    def benchmarks(self) -> list[Benchmark]:
        """Everything that a checkpoint is evaluated on: targets, retention, probes."""
        target = target_benchmark(self.target, self.own.target) if self.own.target else known_benchmark(self.target)
        watched = [
            own_benchmark(r.benchmark, self.own.benchmarks[r.benchmark])
            if r.sealed
            else self._public_benchmark(r.benchmark)
            if r.benchmark in self.own.public
            else known_benchmark(r.benchmark)
            for r in self.retention
        ]
        return [target, *map(known_benchmark, self.then), *watched, *map(known_benchmark, self.probes)]

    def _public_benchmark(self, name: str) -> Benchmark:
        """A public data set as a benchmark: scored by its verifier, or by the judge."""
        own = self.own.public[name]
        if self.judge is None or not PUBLIC[name].judged:
            return target_benchmark(name, own)
        longest = own.longest_answer or LONGEST_ANSWER
        left_out = own.left_out.get("items", ())
        judged = JudgedBenchmark(items=own.items, judge=self.judge, longest_answer=longest, left_out=left_out)
        return own_benchmark(name, judged)

    def checkpoint_steps(self) -> list[int]:
        """The updates of a stage after which a checkpoint is kept: from the last one down, each 2.5 times earlier."""
        last = self.budget.updates
        return sorted({max(1, round(last / CHECKPOINT_RATIO**k)) for k in range(self.checkpoints)})

    def spec_hash(self) -> str:
        """Hash of everything the study says and of what its own files held; another hash is another revision."""
        usual = {"judge": None, "generation": TRANSFORMERS, "training": TrainingSize(), "evaluation": AS_THE_LAB}
        unsaid = {"data", *(key for key, value in usual.items() if getattr(self, key) == value)}
        exclude: dict[str, Any] = dict.fromkeys(unsaid, True)
        if "training" not in unsaid:
            exclude["training"] = self.training.unsaid()
        said = self.model_dump(mode="json", exclude={**exclude, "execution": self.execution.unsaid()})
        if self.training.rollouts is None:
            said.get("training", {}).pop("rollouts", None)
        for entry in said["retention"]:
            for key, value in _LATER_KEYS.items():
                if entry[key] == value:
                    del entry[key]
        data = {} if self.data == Data() else {"data": self.data.said()}
        return digest({**said, **data, "own": self.own.content()}, 16)
