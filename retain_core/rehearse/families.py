"""What the model families of the published study look like: special tokens, chat template, shape.

Written from what their makers publish, so that a study of a model that is not on this machine can be rehearsed. The Llama
template is the paper's: the family's headers without the date and system message that Meta's own template writes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Family:
    """A family of models that share tokenizer, chat template and architecture."""

    name: str
    pattern: re.Pattern[str]
    """What the ids of its models look like."""
    config: dict[str, Any]
    """Of its config.json: what does not depend on the size."""
    tied: re.Pattern[str]
    """Ids of its models whose output layer is the embedding."""
    special: tuple[str, ...]
    stop: str
    """The token that ends an answer."""
    start: str | None
    """The token that a text begins with, where there is one."""
    pad: str | None
    """The padding token; None where the family brings none, and the stop token pads."""
    template: str
    generation: dict[str, Any] = field(default_factory=dict)
    """Of its generation_config.json: what would change how answers are drawn if nobody saw to it."""


LLAMA_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)

QWEN_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
QWEN_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\n" + QWEN_SYSTEM + "<|im_end|>\n' }}"
    "{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

FAMILIES = (
    Family(
        "Llama 3", re.compile(r"llama-?3(?!\d)", re.IGNORECASE),
        config={
            "model_type": "llama", "num_attention_heads": 32, "num_key_value_heads": 8,
            "max_position_embeddings": 131072, "attention_bias": False, "mlp_bias": False,
            "hidden_act": "silu", "rms_norm_eps": 1e-5,
            "rope_parameters": {
                "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
            },
        },
        tied=re.compile(r"[^\d][13]b", re.IGNORECASE),
        special=(
            "<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", "<|start_header_id|>", "<|end_header_id|>",
            "<|eom_id|>", "<|eot_id|>", "<|python_tag|>",
        ),
        stop="<|eot_id|>", start="<|begin_of_text|>", pad=None, template=LLAMA_TEMPLATE,
        generation={"do_sample": True, "temperature": 0.6, "top_p": 0.9},
    ),
    Family(
        "Qwen2.5", re.compile(r"qwen2\.5", re.IGNORECASE),
        config={
            "model_type": "qwen2", "num_attention_heads": 28, "num_key_value_heads": 4,
            "max_position_embeddings": 32768, "hidden_act": "silu", "rms_norm_eps": 1e-6,
            "use_sliding_window": False, "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        },
        tied=re.compile(r"[^\d](0\.5|1\.5|3)b", re.IGNORECASE),
        special=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        stop="<|im_end|>", start=None, pad="<|endoftext|>", template=QWEN_TEMPLATE,
        generation={"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.1},
    ),
    Family(
        "Mistral", re.compile(r"wildguard|mistral-7b", re.IGNORECASE),
        config={
            "model_type": "mistral", "num_attention_heads": 32, "num_key_value_heads": 8,
            "max_position_embeddings": 32768, "hidden_act": "silu", "rms_norm_eps": 1e-5,
            "sliding_window": None, "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        },
        tied=re.compile(r"(?!)"),
        special=("<unk>", "<s>", "</s>"), stop="</s>", start="<s>", pad=None,
        template=(
            "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
            "{{ '[INST] ' + message['content'] + ' [/INST]' }}"
            "{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
        ),
    ),
)  # fmt: skip


def family_of(model: str) -> Family | None:
    """The family that a model's id belongs to, None for one that is not known here."""
    return next((family for family in FAMILIES if family.pattern.search(model)), None)
