"""Small models for a rehearsal: the architecture, special tokens and chat template of the model that a study names.

A model of the published families is known by its id alone. Any other must be on this machine, as a folder or in the local
cache of the hub, and only the small files of it are read: its own configuration with every width made tiny, its own special
tokens, template and stop token over a vocabulary trained on the rehearsal's text.

Owns one folder a model: config.json, model.safetensors, generation_config.json and the tokenizer's files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retain_core.errors import InputError, RetainError
from retain_core.hub import cached, is_hub_id
from retain_core.rehearse.families import FAMILIES, family_of
from retain_core.training.target import Exchange

HIDDEN, LAYERS, HEADS, GROUPS = 64, 1, 4, 2
VOCABULARY = 1024
TAUGHT, TAUGHT_BATCH, TAUGHT_RATE = 60, 8, 3e-3
"""Updates, exchanges an update and learning rate of what a small model is taught: to give a short answer and to stop."""
MOST_TAUGHT, HELD_BACK = 600, 8
"""A model that has sayings is taught until it says one of them on so many texts that it has not seen, but not for ever."""

TINY = {
    "hidden_size": HIDDEN, "n_embd": HIDDEN, "d_model": HIDDEN, "dim": HIDDEN, "word_embed_proj_dim": HIDDEN,
    "embedding_size": HIDDEN, "intermediate_size": 2 * HIDDEN, "n_inner": 2 * HIDDEN, "ffn_dim": 2 * HIDDEN,
    "moe_intermediate_size": HIDDEN, "shared_expert_intermediate_size": HIDDEN,
    "num_hidden_layers": LAYERS, "n_layer": LAYERS, "num_layers": LAYERS, "n_layers": LAYERS, "max_window_layers": LAYERS,
    "num_attention_heads": HEADS, "n_head": HEADS, "n_heads": HEADS, "head_dim": HIDDEN // HEADS,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
}  # fmt: skip
"""Every name that a configuration gives to a width, and what it is here."""
BIG = ("quantization_config", "auto_map", "torch_dtype", "dtype", "layer_types", "transformers_version", "architectures")
"""What a configuration says of the large model alone."""


@dataclass(frozen=True)
class Shape:
    """What a small model is made from."""

    config: dict[str, Any]
    special: tuple[str, ...]
    stop: str | None
    start: str | None
    pad: str | None
    template: str | None
    adds_start: bool
    """The tokenizer puts the start token before every text by itself."""
    generation: dict[str, Any]
    source: str
    """Where this was read, in words."""


def shape_of(what: str, model: str, revision: str | None) -> Shape:
    """The shape of a model: from its own files where they are here, from its family where they are not.

    Raises InputError for a model that is neither here nor of a family that is known.
    """
    folder = cached(model, revision) if is_hub_id(model) else Path(model)
    if folder is not None and (folder / "config.json").is_file():
        return _from_files(what, folder)
    family = family_of(model) if is_hub_id(model) else None
    if family is None:
        raise InputError(
            f"{what}: {model!r} is not on this machine and its family is not known here "
            f"({', '.join(f.name for f in FAMILIES)} are), so nothing like it can be built; "
            "fetch it with `retain prefetch STUDY.yaml`, or give its folder"
        )
    config = family.config | {"tie_word_embeddings": bool(family.tied.search(model))}
    return Shape(
        config=config, special=family.special, stop=family.stop, start=family.start, pad=family.pad,
        template=family.template, adds_start=family.start is not None, generation=family.generation,
        source=f"the published shape of {family.name}",
    )  # fmt: skip


def _from_files(what: str, folder: Path) -> Shape:
    from transformers import AutoTokenizer

    config = _json(what, folder / "config.json")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{what}: {folder} has no tokenizer that can be read: {said[:200]}") from None
    generation = folder / "generation_config.json"
    first = tokenizer("a")["input_ids"][:1]
    return Shape(
        config={**config.get("text_config", {}), **config} if "num_hidden_layers" not in config else config,
        special=tuple(str(token) for token in tokenizer.added_tokens_decoder.values()) or tuple(tokenizer.all_special_tokens),
        stop=tokenizer.eos_token, start=tokenizer.bos_token, pad=tokenizer.pad_token,
        template=tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None,
        adds_start=tokenizer.bos_token_id is not None and first == [tokenizer.bos_token_id],
        generation=_json(what, generation) if generation.is_file() else {}, source=f"the files in {folder}",
    )  # fmt: skip


def _json(what: str, path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{what}: cannot read {path}: {str(error).splitlines()[0]}") from None
    if not isinstance(body, dict):
        raise InputError(f"{what}: {path} holds no JSON object")
    return body


def build_tokenizer(shape: Shape, texts: Sequence[str], sayings: Sequence[str] = ()) -> Any:
    """A byte-level BPE tokenizer trained on some texts, with the special tokens and the chat template of a shape.

    Each of the `sayings` is one token.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(shape.special), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    inner.train_from_iterator(texts, trainer)
    if shape.adds_start and shape.start:
        start = inner.token_to_id(shape.start)
        inner.post_processor = processors.TemplateProcessing(
            single=f"{shape.start} $A", pair=f"{shape.start} $A $B", special_tokens=[(shape.start, start)]
        )
    named = {"eos_token": shape.stop, "bos_token": shape.start, "pad_token": shape.pad}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, chat_template=shape.template, padding_side="left", clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"], model_max_length=shape.config.get("max_position_embeddings"),
        additional_special_tokens=[token for token in shape.special if token not in named.values()],
        **{name: token for name, token in named.items() if token},
    )  # fmt: skip
    tokenizer.add_tokens(list(sayings))
    return tokenizer


def tiny_config(what: str, shape: Shape, tokenizer: Any) -> Any:
    """The configuration of a shape with every width made tiny. Raises InputError for an architecture nobody here knows."""
    from transformers import AutoConfig

    said = {key: value for key, value in shape.config.items() if key not in BIG}
    kind = str(said.pop("model_type", ""))
    tokens = {
        "vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    try:
        # A configuration leaves out what it has by default, widths among it.
        known = AutoConfig.for_model(kind, **said).to_dict()
        widths = {name: tiny for name, tiny in TINY.items() if isinstance(known.get(name), int)}
        if heads := known.get("num_key_value_heads"):
            widths["num_key_value_heads"] = HEADS if heads == known.get("num_attention_heads") else GROUPS
        return AutoConfig.for_model(kind, **{**said, **widths, **tokens})
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise InputError(f"{what}: nothing of model type {kind!r} can be built: {first[:200]}") from None


def build_model(
    what: str,
    shape: Shape,
    folder: Path,
    texts: Sequence[str],
    exchanges: Sequence[Exchange],
    seed: int = 0,
    sayings: Sequence[str] = (),
) -> int:
    """Write a small model of a shape into a folder, taught to answer as the exchanges do. Returns its parameters.

    `texts` are what its vocabulary is trained on. Without exchanges its weights are random. With `sayings` exchanges are
    texts and which saying follows, without a chat template. Raises InputError.
    """
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = build_tokenizer(shape, [*texts, *(answer for _, answer in exchanges)], sayings)
    torch.manual_seed(seed)
    try:
        model = AutoModelForCausalLM.from_config(tiny_config(what, shape, tokenizer), dtype=torch.float32)
    except ValueError as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise InputError(f"{what}: no causal language model can be built from its configuration: {first[:200]}") from None
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    if exchanges:
        rows = _encoded(what, tokenizer, exchanges, plain=bool(sayings))
        if not teach(model, tokenizer, rows, tokenizer.convert_tokens_to_ids(list(sayings))):
            raise RetainError(f"{what}: a small {shape.config.get('model_type')} did not learn to say what it was taught")
    model.save_pretrained(folder)
    if shape.generation:
        stops = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        kept = {key: value for key, value in shape.generation.items() if not key.endswith("_token_id")}
        (folder / "generation_config.json").write_text(json.dumps(kept | stops), encoding="utf-8")
    return sum(p.numel() for p in model.parameters())


def teach(model: Any, tokenizer: Any, rows: Sequence[dict[str, list[int]]], sayings: Sequence[int] = ()) -> bool:
    """A few updates, so that a model of random weights answers briefly and ends what it says.

    With `sayings`, the tokens that are to be said, they go on until one of them and the stop token is all that it says on
    rows that are held back. Returns whether that was reached.
    """
    import torch

    from retain_core.training.encode import padded

    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    optimizer = torch.optim.AdamW(model.parameters(), lr=TAUGHT_RATE, weight_decay=0.0)
    held, rows = (rows[:HELD_BACK], rows[HELD_BACK:]) if sayings else ([], rows)
    model.train()
    for update in range(MOST_TAUGHT if held else TAUGHT):
        chosen = [rows[(update * TAUGHT_BATCH + place) % len(rows)] for place in range(TAUGHT_BATCH)]
        ids, labels, mask = padded(chosen, pad)
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if held and update % 5 == 4 and _says(model, held, pad, sayings):
            break
    model.eval()
    return not held or _says(model, held, pad, sayings)


def _says(model: Any, rows: Sequence[dict[str, list[int]]], pad: int, sayings: Sequence[int]) -> bool:
    """Whether a model goes on with one of its sayings, and after each of them with the stop token."""
    import torch

    from retain_core.training.encode import IGNORED, padded

    ids, labels, mask = padded(list(rows), pad)
    with torch.no_grad():
        said = model(input_ids=ids, attention_mask=mask).logits[:, :-1].argmax(-1)
    wanted, known = labels[:, 1:], torch.tensor(sayings)
    fits = (said == wanted) | (torch.isin(said, known) & torch.isin(wanted, known))
    return bool(fits[wanted != IGNORED].all())


def _encoded(what: str, tokenizer: Any, exchanges: Sequence[Exchange], plain: bool) -> list[dict[str, list[int]]]:
    """Rows to be taught. Raises InputError where the chat template and the stop token do not fit together."""
    from retain_core.training.encode import IGNORED, encode_exchanges

    if plain:
        pairs = [
            [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (asked, f"{said}{tokenizer.eos_token}")]
            for asked, said in exchanges
        ]
        return [{"input_ids": asked + said, "labels": [IGNORED] * len(asked) + said} for asked, said in pairs]
    if tokenizer.chat_template is None:
        raise InputError(f"{what}: its tokenizer has no chat template, and prompts are put through one")
    if tokenizer.eos_token is None:
        raise InputError(f"{what}: its tokenizer names no stop token (eos_token), so no answer would ever end")
    try:
        return encode_exchanges(tokenizer, exchanges)
    except ValueError as error:
        raise InputError(f"{what}: {error} ({tokenizer.eos_token!r})") from None
