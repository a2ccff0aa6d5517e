"""A study: what to run. Its blocks are in `study_blocks`, what may stand together in `study_rules`; `study_file` reads it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
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
from retain_core.evaluation.size import AS_THE_LAB, DIVERGENCE_PROMPTS, EvaluationSize
from retain_core.hub import is_commit, is_hub_id
from retain_core.judge.benchmark import Judge, JudgedBenchmark
from retain_core.methods import CONTROLS, NAMED, WITHOUT_LAB, Method, check_rates, check_seeds, control, interpolated
from retain_core.own.study import Own
from retain_core.own.target import TargetFiles
from retain_core.public.catalogue import LONGEST_ANSWER, PUBLIC, TRAINABLE
from retain_core.study_blocks import Base, Block, Budget, Data, Execution, Primary, Retention, known_benchmark, unknown
from retain_core.study_rules import refuse_doubles, refuse_inconsistent
from retain_core.suite.catalogue import CATALOGUE
from retain_core.training.size import TrainingSize

CHECKPOINT_RATIO = 2.5
"""How many times later a checkpoint is than the one before: four reach back to a sixteenth of the training."""
_LATER_KEYS = {"requests": None, "longest_answer": None, "revision": None, "templates": 1, "unsafe_code": False}
"""Keys of a retention benchmark that came later: left at this they change no hash of a study."""


class Study(Block):
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
    divergence_prompts: PositiveInt = Field(
        DIVERGENCE_PROMPTS, description="prompts of the target, and of retention, along which the KL to the base is measured"
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
        refuse_doubles([m.label for m in value])
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
        refuse_inconsistent(self)
        return self

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
        usual = {
            "judge": None, "generation": TRANSFORMERS, "training": TrainingSize(), "evaluation": AS_THE_LAB,
            "divergence_prompts": DIVERGENCE_PROMPTS,
        }  # fmt: skip
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
