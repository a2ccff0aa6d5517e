"""The exact trainer settings of every method. Every option that bears on the loss is set here.

TRL's defaults are not the paper's and change between releases: bf16 and gradient checkpointing are
on, GRPO normalises by all tokens of a batch ("dapo") and corrects its KL estimate.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

LOG_POINTS = 25
"""Points of a training curve."""


def _common(out: Path, learning_rate: float, seed: int, updates: int, batch: int, precise: bool) -> dict[str, Any]:
    return {
        "output_dir": str(out),
        "learning_rate": learning_rate,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "optim": "adamw_torch",
        "adam_beta1": 0.9,
        "adam_beta2": 0.95,
        "adam_epsilon": 1e-8,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "max_steps": updates,
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": 1,
        "seed": seed,
        "data_seed": seed,
        "bf16": not precise,
        "fp16": False,
        "gradient_checkpointing": False,
        "use_cpu": precise,
        "model_init_kwargs": {"dtype": "float32"},
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "save_strategy": "no",
        "logging_strategy": "steps",
        "logging_steps": max(1, updates // LOG_POINTS),
        "logging_first_step": True,
        "report_to": "none",
        "disable_tqdm": True,
        "shuffle_dataset": False,
    }


def sft_config(max_length: int, **common: Any) -> Any:
    """Token-mean negative log-likelihood of the answer and its stop token; the prompt is masked."""
    from trl import SFTConfig

    return SFTConfig(
        **_common(**common), loss_type="nll", completion_only_loss=True, assistant_only_loss=False, packing=False,
        padding_free=False, max_length=max_length,
    )  # fmt: skip


def grpo_config(config: dict[str, Any], max_new_tokens: int, **common: Any) -> Any:
    """Strictly on-policy: one update per batch of samples, so the ratio is 1 and clipping never acts."""
    from trl import GRPOConfig

    return GRPOConfig(
        **_common(**common), loss_type="grpo", scale_rewards="group", beta=config["kl"], use_bias_correction_kl=False,
        num_iterations=1, steps_per_generation=1, epsilon=0.2, epsilon_high=None, delta=None,
        importance_sampling_level="token", num_generations=config["group_size"], max_completion_length=max_new_tokens,
        temperature=config["temperature"], top_k=0, top_p=1.0, mask_truncated_completions=False,
        sync_ref_model=False, disable_dropout=False, use_vllm=False, log_completions=False,
    )  # fmt: skip
