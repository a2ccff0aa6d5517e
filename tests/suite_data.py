"""The data sets of the general suite as repositories of the hub: their schemas, our own few rows."""

import json

from retain_core.own.benchmark import read_yaml
from retain_core.suite.catalogue import CATALOGUE, files_of

COLOURS = ("red", "green", "blue", "black")


def repositories(folder, subjects=None):
    """Hub id -> folder of every data set; of MMLU the subjects named, or all."""
    configs = [str(read_yaml(file)["dataset_name"]) for file in files_of(CATALOGUE["mmlu"])]
    mmlu = {name: {"dev": _mmlu(name, 6), "test": _mmlu(name, 3 + place % 3)} for place, name in enumerate(subjects or configs)}
    sets = {
        "cais/mmlu": mmlu,
        "openai/gsm8k": {"main": {"train": _sums(6), "test": _sums(5, 7)}},
        "Rowan/hellaswag": {"default": {"train": _endings(3), "validation": _endings(6)}},
        "truthfulqa/truthful_qa": {"multiple_choice": {"validation": _truths(5)}},
        "allenai/winogrande": {"winogrande_xl": {"train": _schemas(3), "validation": _schemas(6)}},
        "openai/openai_humaneval": {"default": {"test": _programs()}},
    }
    return {name: _write(folder / name.replace("/", "--"), parts) for name, parts in sets.items()}


def _write(folder, configs):
    told = []
    for config, splits in configs.items():
        files = [{"split": split, "path": f"{config}/{split}.jsonl"} for split in splits]
        told.append({"config_name": config, "data_files": files})
        for split, rows in splits.items():
            (folder / config).mkdir(parents=True, exist_ok=True)
            (folder / config / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(told)}\n---\n")
    return folder


def _mmlu(subject, count):
    return [
        {"question": f"{subject} {i} ?", "subject": subject, "choices": [f"{c} {i}" for c in COLOURS], "answer": (i * 7) % 4}
        for i in range(count)
    ]


def _sums(count, first=1):
    return [{"question": f"{i} and {i} ?", "answer": f"twice {i}\n#### {2 * i}"} for i in range(first, first + count)]


def _endings(count):
    return [
        {
            "ind": i, "activity_label": "Running", "ctx_a": f"A dog runs {i}.", "ctx_b": "it", "ctx": "", "label": str(i % 4),
            "endings": [f"is {c} [title] now" for c in COLOURS], "source_id": f"video~{i // 2}", "split": "val",
            "split_type": "indomain",
        }
        for i in range(count)
    ]  # fmt: skip


def _truths(count):
    def choices(right):
        return {"choices": [f"{c} it is" for c in COLOURS], "labels": [1] * right + [0] * (4 - right)}

    return [{"question": f"what is {i} ?", "mc1_targets": choices(1), "mc2_targets": choices(2)} for i in range(count)]


def _schemas(count):
    return [
        {
            "sentence": f"The dog {i} saw the cat because _ was loud.",
            "option1": "the dog",
            "option2": "the cat",
            "answer": str(1 + i % 2),
        }
        for i in range(count)
    ]


def _programs():
    return [
        {
            "task_id": f"HumanEval/{i}", "prompt": f"def add{i}(a, b):\n", "canonical_solution": "    return a + b\n",
            "test": f"def check(f):\n    assert f(1, {i}) == {1 + i}\n", "entry_point": f"add{i}",
        }
        for i in range(3)
    ]  # fmt: skip
