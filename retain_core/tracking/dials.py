"""Which parameters the runs of a study have in MLflow: few, and the same names in every arm."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from retain_core.arms import ArmSpec
from retain_core.canonical import canonical_json
from retain_core.methods import DEFAULTS, Method

_NOT_A_DIAL = {"label", "algorithm", "learning_rates", "seeds", "trainer", "model", "revision"}
DIALS = [name for name in Method.model_fields if name not in _NOT_A_DIAL]
NONE = "none"
_LONGEST = 500


def parameters(specs: Sequence[ArmSpec]) -> dict[str, dict[str, str]]:
    """Arm -> its method, algorithm, learning rate and seed, and the dials that the study's methods turn.

    Those are dials in which methods differ, and not because their algorithms do. Controls turn none: their labels say
    what they are. A method without one of these dials has the dial's default where that is a number, so that an axis
    stays an axis, and `none` where it is a word. All dials of an arm are in its `arm.json`.
    """
    methods = [spec.config for spec in specs if spec.role == "method"]
    turned = [name for name in DIALS if _differs(name, [config for config in methods if name in config])]
    return {
        spec.arm: {
            "method": spec.method, "algorithm": spec.config["algorithm"],
            "learning_rate": _text(spec.learning_rate), "seed": _text(spec.seed),
            **{name: _text(spec.config.get(name, _without(name))) for name in turned},
        }
        for spec in specs
    }  # fmt: skip


def _differs(name: str, configs: list[dict[str, Any]]) -> bool:
    """Whether these methods differ in a dial, and one of them has it otherwise than its algorithm would."""
    default = Method.model_fields[name].default
    turned = any(config[name] != DEFAULTS.get(config["algorithm"], {}).get(name, default) for config in configs)
    return turned and len({canonical_json(config[name]) for config in configs}) > 1


def _without(name: str) -> Any:
    default = Method.model_fields[name].default
    return default if isinstance(default, int | float) else None


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return (value or NONE)[:_LONGEST]
    return json.dumps(value, sort_keys=True)[:_LONGEST]
