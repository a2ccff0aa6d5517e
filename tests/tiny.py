"""A tiny model that reads any text: byte-level tokenizer, a chat template with its stop token, random weights."""

from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]


def write_tiny(folder: Path, texts: list[str], positions: int = 512, vocabulary: int = 600) -> Path:
    """Write such a model, its tokenizer trained on the texts. Returns the folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    words = _tokenizer(texts, vocabulary, positions)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=positions, pad_token_id=words.pad_token_id, bos_token_id=None, eos_token_id=words.eos_token_id,
        tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def _tokenizer(texts: list[str], vocabulary: int, positions: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    plain.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    words = PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token=SPECIAL[0], eos_token=SPECIAL[1], model_max_length=positions,
        extra_special_tokens=SPECIAL[2:],
    )  # fmt: skip
    words.chat_template = TEMPLATE
    return words
