"""Everything in a results JSON of lm-eval that can change a score without changing the model."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

_MODEL_NAMES = (
    "pretrained", "model", "peft", "delta", "path", "engine", "revision", "tokenizer", "subfolder", "gguf_file", "base_url",
)  # fmt: skip
"""Model arguments that say which model it is; all others are settings."""
_RUN_SETTINGS = ("lm_eval_version", "chat_template_sha", "system_instruction_sha", "fewshot_as_multiturn")
_CONFIG_SETTINGS = {
    "model": "backend", "model_dtype": "dtype", "batch_size": "batch_size", "gen_kwargs": "gen_kwargs", "limit": "limit",
    "random_seed": "random_seed", "numpy_seed": "numpy_seed", "torch_seed": "torch_seed", "fewshot_seed": "fewshot_seed",
}  # fmt: skip
_BENCHMARK_SETTINGS = ("output_type", "generation_kwargs", "repeats", "filter_list", "metric_list", "process_results")
NOT_GIVEN = "not given"


def settings_of(told: dict[str, Any], parts: list[str], name: str) -> dict[str, Any] | None:
    """Everything the results JSON knows that can change a score without changing the model."""
    if not told:
        return None
    config = told.get("config", {})
    found = {key: told[key] for key in _RUN_SETTINGS if key in told}
    found |= {key: config[theirs] for theirs, key in _CONFIG_SETTINGS.items() if theirs in config}
    if str(config.get("batch_size", "")).startswith("auto"):
        found["batch_sizes"] = config.get("batch_sizes")
    arguments = config.get("model_args") or {}
    if isinstance(arguments, str):
        arguments = dict(pair.split("=", 1) for pair in arguments.split(",") if "=" in pair)
    found |= {f"model_args.{key}": value for key, value in arguments.items() if key not in _MODEL_NAMES}
    for part in dict.fromkeys([*parts, name]):
        prefix = "" if part == name else f"{part}."
        if part in told.get("versions", {}):
            found[f"{prefix}version"] = told["versions"][part]
        if part in told.get("n-shot", {}):
            found[f"{prefix}num_fewshot"] = told["n-shot"][part]
        text = told.get("configs", {}).get(part)
        if text is not None:
            found |= {f"{prefix}{key}": _short(text[key]) if key in text else NOT_GIVEN for key in _BENCHMARK_SETTINGS}
    return found


def _short(value: Any) -> Any:
    """A setting as told; code and long lists by their hash, without the addresses that change from run to run."""
    text = re.sub(r" at 0x[0-9a-f]+", "", json.dumps(value, sort_keys=True, ensure_ascii=False))
    return json.loads(text) if len(text) <= 120 else f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:12]}"
