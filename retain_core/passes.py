"""Passes through a model that fit into memory: how many rows go at once, and logits of some positions at a time.

The budget of a pass follows from the shape of the model alone, whatever the card, so that nothing measured depends on where it
was measured. Models of the size of the lab's have none, or one that is larger than any of their batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import torch

WORKSPACE = 8 * 2**30
"""Bytes that the tokens of a pass may take beside the weights."""
MOST_ROWS = 512
"""No pass has more rows than this, whatever the budget."""
SCORED_AT_ONCE = 2**29
"""Most logits (rows x tokens x vocabulary) of a pass that is scored whole: 2 GiB in fp32."""
LOGITS_AT_ONCE = 2**27
"""Most logits of which distributions are compared at once: half a GiB in fp32, of which there are several."""


class Width(NamedTuple):
    """What of a model's shape decides what a token takes."""

    hidden: int
    layers: int
    keys: int
    """Key heads x their width."""
    inner: int
    """Width of the feed-forward part."""
    vocabulary: int
    context: int | None
    """Tokens that it reads at most; None where its config does not say."""

    @classmethod
    def of(cls, config: Any) -> Width:
        """The width of a transformers config."""
        config = config.get_text_config()
        heads = config.num_attention_heads
        each = getattr(config, "head_dim", None) or config.hidden_size // heads
        return cls(
            config.hidden_size, config.num_hidden_layers, (getattr(config, "num_key_value_heads", None) or heads) * each,
            getattr(config, "intermediate_size", None) or 4 * config.hidden_size, config.vocab_size,
            getattr(config, "max_position_embeddings", None),
        )  # fmt: skip

    def bytes_per_token(self, size: int) -> int:
        """Bytes of a token in numbers of `size` bytes: keys and values in all layers, and what one layer makes of it."""
        return size * (2 * self.layers * self.keys + 8 * self.hidden + 3 * self.inner)


def tokens_at_once(config: Any, size: int = 4) -> int | None:
    """Tokens (rows x the longest) that a pass of a model may hold, in numbers of `size` bytes.

    None where `MOST_ROWS` rows as long as the model reads fit, logits and all, so that no batch is ever made smaller.
    """
    width = Width.of(config)
    tokens = max(1, WORKSPACE // width.bytes_per_token(size))
    if width.context is None:
        return tokens
    most = MOST_ROWS * width.context
    return None if most <= tokens and most * width.vocabulary <= SCORED_AT_ONCE else tokens


def groups(lengths: Sequence[int], rows: int, tokens: int | None = None) -> list[slice]:
    """Neighbours that go through a model together: at most `rows`, and rows x the longest at most `tokens`, one at least."""
    found, start, longest = [], 0, 0
    for place, length in enumerate(lengths):
        longest = max(longest, length)
        count = place - start + 1
        if count > 1 and (count > rows or (tokens is not None and count * longest > tokens)):
            found.append(slice(start, place))
            start, longest = place, length
    return [*found, slice(start, len(lengths))] if lengths else found


def stretches(rows: int, positions: int, vocabulary: int) -> Iterator[slice]:
    """Neighbouring positions of `rows` sequences whose logits are held at once."""
    step = max(1, LOGITS_AT_ONCE // (rows * vocabulary))
    return (slice(start, min(start + step, positions)) for start in range(0, positions, step))


class Read(NamedTuple):
    """Text that a model has read, before there are logits of all of it."""

    states: torch.Tensor
    """B x T x width."""
    head: Callable[[torch.Tensor], torch.Tensor]
    """From states to logits."""
    vocabulary: int
    cache: Any

    def logits(self, where: slice) -> torch.Tensor:
        """B x positions x vocabulary, at some of the positions."""
        return self.head(self.states[:, where])

    def stretches(self, whole: bool) -> Iterator[slice]:
        """Positions whose logits are held at once: all of them where the pass is `whole`."""
        rows, positions = self.states.shape[:2]
        return iter([slice(0, positions)]) if whole else stretches(rows, positions, self.vocabulary)


def read(model: Any, ids: torch.Tensor, whole: bool, **more: Any) -> Read:
    """Let a causal language model read a batch; `whole`: all logits are made at once, as its own forward pass does.

    So do models that make their logits in a way that is not known here.
    """
    vocabulary = model.config.get_text_config().vocab_size
    head = None if whole else _head_of(model)
    if head is None:
        out = model(input_ids=ids, **more)
        return Read(out.logits, lambda logits: logits, vocabulary, out.past_key_values)
    out = model.base_model(input_ids=ids, **more)
    return Read(out.last_hidden_state, head, vocabulary, out.past_key_values)


_HEADS: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
"""Model -> whether its logits are what `_made_by` makes of its last states: tried once, on two tokens."""


def _head_of(model: Any) -> Callable[[torch.Tensor], torch.Tensor] | None:
    import torch

    head = _made_by(model)
    if model not in _HEADS:
        ids = torch.zeros((1, 2), dtype=torch.long, device=model.device)
        with torch.no_grad():
            _HEADS[model] = torch.equal(head(model.base_model(input_ids=ids).last_hidden_state), model(input_ids=ids).logits)
    return head if _HEADS[model] else None


def _made_by(model: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """The output layer with what the families of models do behind it: a scale (Cohere, Granite) or a soft cap (Gemma)."""
    import torch

    config, layer = model.config.get_text_config(), model.get_output_embeddings()
    names = ("logit_scale", "logits_scaling", "final_logit_softcapping")
    factor, divisor, cap = (getattr(config, name, None) for name in names)

    def head(states: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = layer(states)
        logits = logits if factor is None else logits * factor
        logits = logits if divisor is None else logits / divisor
        return logits if cap is None else torch.tanh(logits / cap) * cap

    return head
