"""The exact trainer settings of every method. Every option that bears on the loss is set here.

TRL's defaults are not the paper's and change between releases: bf16 and gradient checkpointing are
on, GRPO normalises by all tokens of a batch ("dapo") and corrects its KL estimate.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retain_core.training import ranks
from retain_core.training.size import WHOLE, TrainingSize

LOG_POINTS = 25
"""Points of a training curve."""
LENGTHS = 64
"""Where layers are compiled, lengths are multiples of this: a compilation serves few of them, and other ones run plain."""
NO_CLIP = 1e9
"""A clip range that no ratio leaves."""


def _common(
    out: Path,
    learning_rate: float,
    seed: int,
    updates: int,
    batch: int,
    precise: bool,
    optimizer: str = "adam",
    size: TrainingSize = WHOLE,
    parts: int = 1,
) -> dict[str, Any]:
    """`parts`: micro-batches that the trainer itself makes of a batch; those of the SFT family are `ImitationTrainer`'s."""
    # The fused kernel needs no memory of its own beside the moments; on the CPU the plain loop is what the lab is made with.
    adam = "adamw_torch" if precise else "adamw_torch_fused"
    return {
        "output_dir": str(out),
        "learning_rate": learning_rate,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "optim": {"adam": adam, "sgd": "sgd"}[optimizer],
        "adam_beta1": 0.9,
        "adam_beta2": 0.95,
        "adam_epsilon": 1e-8,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "max_steps": updates,
        "per_device_train_batch_size": batch // (parts * ranks.count()),
        "gradient_accumulation_steps": parts,
        "seed": seed,
        "data_seed": seed,
        "bf16": size.bf16(precise),
        "fp16": False,
        "gradient_checkpointing": size.activation_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if size.activation_checkpointing else None,
        "use_cpu": precise,
        "ddp_backend": "gloo" if precise and ranks.count() > 1 else None,
        "ddp_find_unused_parameters": False,
        "average_tokens_across_devices": True,
        "model_init_kwargs": {"dtype": "float32"},
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "save_strategy": "no",
        "logging_strategy": "steps",
        "logging_steps": max(1, updates // LOG_POINTS),
        "logging_first_step": True,
        "report_to": "none",
        "disable_tqdm": True,
    }


def sft_config(loss: str = "nll", order: str = "random", **common: Any) -> Any:
    """Mean over the tokens of the answer and its stop token; the prompt is masked and nothing is cut.

    `loss` is `nll` or `dft`; `order` is that of the training text: `random` or `sequential`.
    """
    from trl import SFTConfig

    return ranks.in_shards_on_cpu(SFTConfig(
        **_common(**common), loss_type=loss, completion_only_loss=True, assistant_only_loss=False, packing=False,
        padding_free=False, max_length=None, shuffle_dataset=False, train_sampling_strategy=order,
        pad_to_multiple_of=LENGTHS if common.get("size", WHOLE).compile else None,
    ))  # fmt: skip


def preference_config(dials: dict[str, Any], **common: Any) -> Any:
    """Mean over pairs; nothing is cut; a batch is counted in pairs. The base is the reference, and it is never moved."""
    from trl import DPOConfig

    return ranks.in_shards_on_cpu(DPOConfig(
        **_common(**common, parts=_parts(common)), loss_type=["sigmoid"], loss_weights=None, beta=dials["beta"],
        label_smoothing=0.0,
        use_weighting=False, ld_alpha=None, f_divergence_type="reverse_kl", precompute_ref_log_probs=False,
        sync_ref_model=False, disable_dropout=False, padding_free=False, max_length=None,
    ))  # fmt: skip


def grpo_config(dials: dict[str, Any], max_new_tokens: int, *, epochs: int = 1, slices: int = 1, **common: Any) -> Any:
    """The policy gradient on own samples: one batch of samples makes `slices` updates, `epochs` times over.

    With one of each the ratio is exactly 1 and clipping cannot act. Without `clip` the ratio is left as it is. The KL
    penalty and the advantage are retain's own (`PolicyTrainer`), so TRL's are off.
    """
    from trl import GRPOConfig

    parts = _parts(common)
    return ranks.in_shards_on_cpu(GRPOConfig(
        **_common(**common, parts=parts), loss_type={"sequence": "grpo", "constant": "dr_grpo"}[dials["normaliser"]],
        scale_rewards="none", beta=0.0, num_iterations=epochs, steps_per_generation=slices * parts,
        epsilon=NO_CLIP if dials["clip"] is None else dials["clip"], epsilon_high=None, delta=None,
        importance_sampling_level="token", num_generations=dials["group_size"], max_completion_length=max_new_tokens,
        temperature=dials["temperature"], top_k=0, top_p=1.0, mask_truncated_completions=dials["mask_truncated"],
        sync_ref_model=False, disable_dropout=False, use_vllm=False, log_completions=False, shuffle_dataset=False,
    ))  # fmt: skip


def _parts(common: dict[str, Any]) -> int:
    """Micro-batches of a process's share of a batch."""
    return int(common.get("size", WHOLE).parts(common["batch"] // ranks.count()))
