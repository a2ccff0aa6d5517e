"""The user's own benchmark: an lm-eval YAML file with its items.

What its results are filed under covers the YAML file and those it includes, the Python files that its `!function`s name,
and the data files that `dataset_path` and `dataset_kwargs` name where they are local. It does not cover what those Python
files import, nor a data set of the hub beyond its name and the revision that the YAML pins.
"""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from retain_core.canonical import digest
from retain_core.errors import InputError, RetainError
from retain_core.own.files import Sealed, Source, module_file, seal
from retain_core.own.rows import LeftOut, examine_documents, refuse_beyond, without_lines
from retain_core.yaml_text import parse_yaml

FEWSHOT_SEED = 1234
"""lm-eval's own default."""


class OwnBenchmark(Sealed):
    """A benchmark of the user's own with the content that its files had when the study was read."""

    yaml: Source
    metrics: tuple[str, ...]
    """As scores are filed; the primary one first."""
    choices: int | None
    cluster: str | None
    left_out: dict[str, tuple[LeftOut, ...]] = Field(default_factory=dict)
    """Data file -> its bad rows that the study goes on without."""

    hub_data: str | None = None
    """The data set of the hub that its items come from; None where they lie in local files."""

    @property
    def content(self) -> str:
        """Hash of the YAML and of all that it names, as it is asked."""
        gone = [[Path(file).name, [entry.line for entry in entries]] for file, entries in self.left_out.items()]
        return digest([self.yaml.content, gone], 64) if gone else self.yaml.content


class _Function(str):
    """`module.function` of a `!function` tag."""


class _Loader(yaml.SafeLoader):
    """YAML with lm-eval's `!function`; nothing is imported."""


def _function(loader: _Loader, node: yaml.Node) -> _Function:
    return _Function(loader.construct_scalar(node))  # type: ignore[arg-type]


_Loader.add_constructor("!function", _function)


def seal_benchmark(
    path: Path, metric: str | None, choices: int | None, cluster: str | None, bad_rows: float = 0.0
) -> OwnBenchmark:
    """Read and check a YAML file and all that it names. Raises InputError with one sentence that begins with the file.

    `bad_rows` is the share of a data file's rows that may be left out.
    """
    config, files = _read(path)
    for key in ("group", "task_list", "class"):
        if key in config:
            raise InputError(f"{path}: has `{key}:`; retain takes one benchmark with one `task:`, not a group or a class")
    if not isinstance(config.get("task"), str):
        raise InputError(f"{path}: `task: <name>` is missing" if "task" not in config else f"{path}: `task` must be one name")
    if "version" not in (config.get("metadata") or {}):
        raise InputError(f"{path}: `metadata: {{version: 1}}` is missing; without it nobody can tell two versions apart")
    kind = config.get("output_type", "generate_until")
    if kind not in ("generate_until", "multiple_choice"):
        raise InputError(f"{path}: output_type {kind} is not supported; generate_until and multiple_choice are")
    if not (config.get("test_split") or config.get("validation_split")):
        raise InputError(f"{path}: neither `test_split` nor `validation_split` says which items are asked")
    if (config.get("generation_kwargs") or {}).get("do_sample"):
        raise InputError(f"{path}: generation_kwargs has do_sample: true; answers that are compared are greedy")
    known = metric_names(config)
    if metric is not None and metric not in known:
        raise InputError(f"{path}: has no metric {metric!r}; it has {', '.join(known)}")
    first = metric or known[0]
    for entry in config.get("metric_list") or []:
        if first.split(",")[0] == entry["metric"] and entry.get("higher_is_better") is False:
            raise InputError(f"{path}: {first} has higher_is_better: false, and a drop is a loss only where higher is better")
    if (config.get("dataset_kwargs") or {}).get("trust_remote_code"):
        raise InputError(f"{path}: dataset_kwargs has trust_remote_code: true; retain never runs the code of a data set")
    _refuse_globs(path, config)
    return OwnBenchmark(
        yaml=seal([*files, *_data(config, path.parent)]), metrics=(first, *(m for m in known if m != first)), choices=choices,
        cluster=cluster, left_out=_left_out(config, path.parent, cluster, bad_rows),
        hub_data=config["dataset_path"] if _on_hub(config, path.parent) else None,
    )  # fmt: skip


def metric_names(config: dict[str, Any]) -> list[str]:
    """The names that scores are filed under: the metric, with its filter where the YAML names filters."""
    listed = config.get("metric_list") or [
        {"metric": "acc" if config.get("output_type") == "multiple_choice" else "exact_match"}
    ]
    metrics = [entry["metric"] for entry in listed if entry["metric"] != "parsed"]
    filters = [entry["name"] for entry in config.get("filter_list") or []]
    return [score_name(metric, name) for metric in metrics for name in filters or ["none"]]


def score_name(metric: str, name_of_filter: str) -> str:
    """`acc`, or `exact_match,strict-match` where a filter has a name."""
    return metric if name_of_filter == "none" else f"{metric},{name_of_filter}"


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file of lm-eval with those it includes; nothing that it names is imported or read. Raises InputError."""
    return _read(path, code=False)[0]


def _read(path: Path, within: tuple[Path, ...] = (), code: bool = True) -> tuple[dict[str, Any], list[Path]]:
    """A YAML file with those it includes, and every YAML and Python file that it is made of."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text") from None
    _, config = parse_yaml(path, text, _Loader)
    if not isinstance(config, dict):
        raise InputError(f"{path}: a benchmark is a mapping with `task: <name>`")
    files = [path, *(_modules(config, path) if code else [])]
    included = config.pop("include", [])
    merged: dict[str, Any] = {}
    for name in [included] if isinstance(included, str) else included:
        other = path.parent / name
        if other in within:
            raise InputError(f"{path}: includes itself by way of {other}")
        below, more = _read(other, (*within, path), code)
        merged.update(below)
        files += more
    return {**merged, **config}, list(dict.fromkeys(files))


def _modules(value: Any, path: Path) -> list[Path]:
    """The Python files that functions in a YAML value come from, found as lm-eval finds them."""
    if isinstance(value, _Function):
        module = value.rpartition(".")[0]
        beside = path.parent / f"{module.replace('.', '/')}.py"
        found = beside if beside.is_file() else module_file(module, None) if module else None
        if found is None:
            raise InputError(f"{path}: !function {value}: there is no {beside.name} beside it and no such module is installed")
        return [found]
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [file for entry in below for file in _modules(entry, path)]


def _located(value: Any, folder: Path) -> Any:
    """A value with every text that names a file or folder beside the YAML turned into its absolute path."""
    if isinstance(value, dict):
        return {key: _located(entry, folder) for key, entry in value.items()}
    if isinstance(value, list):
        return [_located(entry, folder) for entry in value]
    if isinstance(value, str) and value and (folder / value).exists() and (folder / value).resolve() != folder.resolve():
        return str((folder / value).absolute())
    return value


def _data(config: dict[str, Any], folder: Path) -> list[Path]:
    """The local data files that a benchmark names."""
    found: list[Path] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict | list):
            for entry in value.values() if isinstance(value, dict) else value:
                walk(entry)
        elif isinstance(value, str) and Path(value).is_absolute() and Path(value).exists():
            path = Path(value)
            found.extend(sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path])

    walk(_located([config.get("dataset_path"), config.get("dataset_kwargs")], folder))
    return list(dict.fromkeys(found))


def _left_out(config: dict[str, Any], folder: Path, cluster: str | None, share: float) -> dict[str, tuple[LeftOut, ...]]:
    """The bad rows of the JSONL files that are named one by one. Raises InputError when there are too many."""
    if config.get("dataset_path") != "json":
        return {}
    needed = {*_asked_with(config), *([cluster] if cluster else [])}
    files = [file for file in _data({"dataset_kwargs": config.get("dataset_kwargs")}, folder) if file.suffix == ".jsonl"]
    found = {str(file): refuse_beyond(file, examine_documents(file, needed), share) for file in files}
    return {file: gone for file, gone in found.items() if gone}


def _on_hub(config: dict[str, Any], folder: Path) -> bool:
    """Whether the items come from a data set of the hub: `owner/name`, or a name that is no reader of local files."""
    reader = config.get("dataset_path")
    if not isinstance(reader, str) or "custom_dataset" in config or (folder / reader).exists():
        return False
    return not _data(config, folder) and reader not in ("json", "csv", "parquet", "text", "arrow")


def _asked_with(config: dict[str, Any]) -> set[str]:
    """Fields of a document that a prompt or its right answer is made of, whatever the document says.

    A template that branches or has filters may do without a field, so it is left out here.
    """
    from jinja2 import Environment, TemplateError, meta

    found: set[str] = set()
    for key in ("doc_to_text", "doc_to_target", "doc_to_choice"):
        text = config.get(key)
        if not isinstance(text, str) or isinstance(text, _Function):
            continue
        if "{{" not in text and "{%" not in text:
            found.add(text)
        elif not any(sign in text for sign in ("{%", "|", " if ", " or ")):
            with contextlib.suppress(TemplateError):
                found |= meta.find_undeclared_variables(Environment().parse(text))  # noqa: S701
    return found


def _refuse_globs(path: Path, config: dict[str, Any]) -> None:
    """Refuse patterns among the data files of a reader of local files (`dataset_path: json`): they cannot be sealed."""
    reader = config.get("dataset_path")
    if not isinstance(reader, str) or "/" in reader or (path.parent / reader).exists():
        return  # a data set of the hub is known by its revision, and a folder is sealed whole

    def walk(value: Any) -> None:
        if isinstance(value, dict | list):
            for entry in value.values() if isinstance(value, dict) else value:
                walk(entry)
        elif isinstance(value, str) and "://" not in value and set("*?[") & set(value):
            raise InputError(f"{path}: {value!r} is a pattern, and retain seals the files that a benchmark names; list them")

    walk(config.get("dataset_kwargs"))


@lru_cache(maxsize=256)
def load_task(path: Path, content: str, left_out: tuple[tuple[str, tuple[LeftOut, ...]], ...] = (), changes: str = "{}") -> Any:  # noqa: ARG001
    """lm-eval's task of a YAML file, its items loaded without what is left out; once a process for equal content.

    `changes` is JSON of what is said otherwise than in the file. Where that is the metrics, no code of it is run.
    """
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml

    changed = json.loads(changes)

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    config: dict[str, Any] = {}
    try:
        config = load_yaml(path, resolve_func="metric_list" not in changed)
        changed["dataset_kwargs"] = (config.get("dataset_kwargs") or {}) | changed.get("dataset_kwargs", {})
        config |= {key: value for key, value in changed.items() if value or key != "dataset_kwargs"}
        for key in ("dataset_path", "dataset_kwargs"):
            if key in config:
                config[key] = _located(config[key], path.parent)
        if "custom_dataset" in config or not _data(config, path.parent):
            tasks = TaskManager(include_defaults=False).load([config])
        else:
            # Local files are read at once, so that nothing is kept in the user's cache of data sets.
            with tempfile.TemporaryDirectory() as cache:
                options = {"cache_dir": cache, "keep_in_memory": True}
                config["dataset_kwargs"] = _shortened(config.get("dataset_kwargs"), dict(left_out), Path(cache))
                tasks = TaskManager(include_defaults=False).load(
                    [config | {"dataset_kwargs": {**config.get("dataset_kwargs", {}), **options}}]
                )
    except Exception as error:
        said = (str(error).strip().splitlines() or [""])[0]
        if _on_hub(config, path.parent):
            raise RetainError(
                f"{path}: the data set {config['dataset_path']} is not in the local cache of the hub; "
                f"fetch it with `retain prefetch STUDY.yaml`, which needs a network once ({type(error).__name__}: {said})"
            ) from error
        raise RetainError(f"lm-eval cannot load {path}: {type(error).__name__}: {error}") from error
    return next(iter(tasks["tasks"].values()))


def _shortened(value: Any, left_out: dict[str, tuple[LeftOut, ...]], folder: Path) -> Any:
    """A value with every file that rows are left out of replaced by a copy without them, below `folder`."""
    if isinstance(value, dict):
        return {key: _shortened(entry, left_out, folder) for key, entry in value.items()}
    if isinstance(value, list):
        return [_shortened(entry, left_out, folder) for entry in value]
    if value not in left_out:
        return value
    copy = folder / f"{list(left_out).index(value)}-{Path(value).name}"
    copy.write_bytes(without_lines(Path(value), left_out[value]))
    return str(copy)


def task_of(benchmark: OwnBenchmark) -> Any:
    """lm-eval's task of a benchmark, few-shot examples drawn as lm-eval's command line draws them."""
    task = load_task(benchmark.yaml.checked(), benchmark.content, tuple(benchmark.left_out.items()))
    task.set_fewshot_seed(FEWSHOT_SEED)
    return task


def rows_of(benchmark: OwnBenchmark) -> list[dict[str, Any]]:
    """Every item as lm-eval asks it: doc_id, prompt (the user's turn), target, cluster, kind. Raises RetainError."""
    task, path = task_of(benchmark), benchmark.yaml.path
    if task.multiple_input:
        raise RetainError(f"{path}: a choice of contexts is not supported; ask one question with several answers")
    return rows_of_task(task, path, benchmark.cluster)


def rows_of_task(task: Any, path: Path, cluster: str | None) -> list[dict[str, Any]]:
    """Every item of a task of lm-eval; `cluster` is the field that says which are alike. Raises RetainError."""
    rows = []
    for doc_id, doc in enumerate(task.eval_docs):
        if cluster is not None and cluster not in doc:
            raise RetainError(f"{path}: item {doc_id} has no field {cluster!r} to cluster by")
        prompt = task.fewshot_context(doc, task.config.num_fewshot or 0)
        alike = None if cluster is None else str(doc[cluster])
        rows.append(
            {
                "doc_id": doc_id, "prompt": "\n".join(prompt) if isinstance(prompt, list) else prompt,
                "target": _target(task, doc), "cluster": alike, "kind": doc.get("kind"),
            }
        )  # fmt: skip
    return rows


def _target(task: Any, doc: dict[str, Any]) -> str:
    """The right answer as a text; of a multiple choice the choice itself."""
    # Where the choice is one of contexts, the text says which of them is right.
    target = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    first = target[0] if isinstance(target, list) and target else target
    if task.OUTPUT_TYPE == "multiple_choice" and isinstance(first, int):
        return str(task.doc_to_choice(doc)[first])
    return str(target)
