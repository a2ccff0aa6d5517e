"""A tiny model with a tokenizer that reads any text, made in a second; its weights are random."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BEGIN, END = "<s>", "</s>"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
)


def tiny_tokenizer(text, template=TEMPLATE):
    """Byte-level pairs, as the families of today have; `template` is its chat template."""
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer, plain.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=[BEGIN, END], initial_alphabet=alphabet, vocab_size=600)
    plain.train_from_iterator(text, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=plain, bos_token=BEGIN, eos_token=END, pad_token=END)
    made.chat_template = template
    return made


def tiny_model(tokenizer, context=1024, seed=0):
    """Two layers of random weights."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=context, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            tie_word_embeddings=True,
        )
    )  # fmt: skip


def write_tiny(folder, text=("may i hug this dog ?",), template=TEMPLATE, context=1024, seed=0):
    """A model's folder."""
    tokenizer = tiny_tokenizer(text, template)
    tiny_model(tokenizer, context, seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
