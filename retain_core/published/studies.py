"""The study files of the published study, written from one template.

    python -m retain_core.published.studies [FOLDER]

writes one file per model and target (default studies/paper) from `studies.yaml`. What differs from the paper is in
docs/method.md.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path("studies/paper")


def paper_studies() -> dict[str, dict[str, Any]]:
    """Name of a study -> the content of its file, model by model."""
    raw = yaml.safe_load(files("retain_core.published").joinpath("studies.yaml").read_text(encoding="utf-8"))
    return {f"{model}-{target}": _study(raw, model, target) for model in raw["models"] for target in raw["targets"]}


def _study(raw: dict[str, Any], model_name: str, target_name: str) -> dict[str, Any]:
    model, target, template = raw["models"][model_name], raw["targets"][target_name], raw["template"]
    size = raw["sizes"][model["size"]]
    names = [name for name in raw["retention"] if name != target["target"]]
    names += [name for name in raw["general"] if name not in target.get("without", ())]
    retention = [{"benchmark": name, "near": True} if name in target["near"] else name for name in names]
    methods = [_refreshed(method, target["refresh"]) for method in template["methods"]]
    budget = {"updates": target["updates"], "sequences_per_update": raw["sequences_per_update"]}
    return {
        "study": f"{model_name}-{target_name}", "base": {"model": model["model"]}, "target": target["target"],
        "retention": retention, "judge": template["judge"], "methods": methods, "controls": template["controls"],
        "learning_rates": model["learning_rates"], "seeds": template["seeds"], "budget": budget,
        "checkpoints": template["checkpoints"], **size, "evaluation": template["evaluation"],
        "primary": template["primary"], "keep": template["keep"],
    }  # fmt: skip


def _refreshed(method: Any, refresh: int) -> Any:
    iterative = isinstance(method, dict) and method["algorithm"] == "iterative_sft"
    return {**method, "staleness": refresh} if iterative else method


def study_text(study: dict[str, Any]) -> str:
    """The file of a study."""
    head = (
        f"# {study['base']['model']} learns {study['target']}: the published study (arXiv 2510.18874), "
        "with one grid for all methods.\n"
        "# How to run it: docs/paper.md. What differs from the paper: docs/method.md.\n"
        "# Written from retain_core/published/studies.yaml: change it there. `retain prefetch --pin` writes the revisions.\n"
    )
    return head + yaml.safe_dump(study, sort_keys=False, default_flow_style=None, width=120)


def main() -> None:
    """Write every study file."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, study in paper_studies().items():
        (folder / f"{name}.yaml").write_text(study_text(study), encoding="utf-8")


if __name__ == "__main__":
    main()
