"""How much memory of an accelerator a training or an evaluation takes at its peak, from the shape of the model alone.

Counted for training with fp32 weights and bf16 products (torch's autocast) of a Llama-shaped model, as transformers
writes it: norms and the residual stream in fp32, one cast copy of a layer's input for each matrix that reads it.
`benchmarks/accelerator.py` measures the same on a card.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from retain_core.evaluation.benchmarks import BATCH_SIZE
from retain_core.evaluation.size import EvaluationSize
from retain_core.passes import LOGITS_AT_ONCE, SCORED_AT_ONCE, Width
from retain_core.training.size import TrainingSize

TRAINED = 16
"""Bytes a trained parameter: weight 4, gradient 4, Adam's moments 8."""
TILE = 4096 * 32768 * 2
"""Bytes of the tile in which TRL takes the logits: tokens x words in bf16."""


class Shape(NamedTuple):
    """What of a model's config decides its memory."""

    hidden: int
    layers: int
    queries: int
    """Query heads x their width."""
    keys: int
    """Key heads x their width."""
    inner: int
    """Width of the feed-forward part."""
    vocabulary: int
    tied: bool
    biases: bool

    @classmethod
    def of(cls, config: Any) -> Shape:
        """The shape of a transformers config."""
        config = config.get_text_config()
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        biases = bool(getattr(config, "attention_bias", False)) or config.model_type == "qwen2"
        return cls(
            config.hidden_size, config.num_hidden_layers, config.num_attention_heads * width,
            config.num_key_value_heads * width, config.intermediate_size, config.vocab_size,
            bool(config.tie_word_embeddings), biases,
        )  # fmt: skip

    @property
    def in_layers(self) -> int:
        """Parameters of the matrices of all layers."""
        attention = self.hidden * (self.queries + 2 * self.keys) + self.queries * self.hidden
        return self.layers * (attention + 3 * self.hidden * self.inner)

    @property
    def parameters(self) -> int:
        """All parameters, tied ones once."""
        small = self.layers * (2 * self.hidden + self.biases * (self.queries + 2 * self.keys)) + self.hidden
        return self.in_layers + small + self.vocabulary * self.hidden * (1 if self.tied else 2)


def training_flops(shape: Shape, tokens: int, answered: int, longest: int) -> float:
    """Operations of forward and backward on sequences of `longest` tokens, nothing counted twice.

    6 a token and parameter of the layers, 6 a token with loss and parameter of the output layer, and of causal attention
    6 x length x width of the queries in each layer: two products forward, twice that backward, half of each masked.
    """
    head = 6.0 * shape.vocabulary * shape.hidden * answered
    return 6.0 * shape.in_layers * tokens + head + 6.0 * shape.layers * longest * shape.queries * tokens


def layer_bytes(shape: Shape, compiled: bool) -> int:
    """Bytes a token that one layer keeps for its backward pass."""
    attention = 4 * shape.queries + 4 * shape.keys  # q, k, v and the answer of attention, bf16
    if compiled:
        # The stream twice and its norms in bf16; gate and up. The rest is computed again within the layer.
        return 8 * shape.hidden + 4 * shape.hidden + attention + 6 * shape.inner
    # Each norm: its input and its normalised input in fp32; three and two casts of it; gate, its SiLU, up, their product.
    return 16 * shape.hidden + 10 * shape.hidden + attention + 8 * shape.inner


def training_peak(shape: Shape, size: TrainingSize, rows: int, longest: int) -> int:
    """Bytes at the peak of training all weights in bf16 on `rows` sequences of `longest` tokens at once.

    The peak is where the backward pass begins: everything that the layers keep, and the gradient of the output layer, which
    is whole in fp32 until the embedding's has come too. With recomputing it may also be the end of the forward pass.
    """
    tokens = rows * longest
    layer = tokens * layer_bytes(shape, size.compile)
    stream = 4 * shape.hidden * tokens
    cast = 2 * shape.in_layers
    head = 4 * shape.vocabulary * shape.hidden + 4 * stream
    held = TRAINED * shape.parameters
    if not size.activation_checkpointing:
        return held + shape.layers * layer + cast + head + TILE
    # What is cast for the forward pass is let go at its end, and cast again layer by layer.
    forward = cast + 4 * stream + TILE
    return held + shape.layers * stream + max(forward, head + layer + cast // shape.layers)


def penalty_bytes(vocabulary: int, tokens: int) -> int:
    """Bytes of a KL penalty along so many tokens: the policy's logits in fp32 with their gradient, the base's in bf16.

    Distributions are made in fp32 for some positions at a time, and again in the backward pass: eight of them at once.
    """
    return 12 * vocabulary * tokens + 32 * min(LOGITS_AT_ONCE, vocabulary * tokens)


def evaluation_peak(shape: Shape, size: EvaluationSize, longest: int) -> int:
    """Bytes at the peak of an evaluation in this process, where no sequence is longer than `longest` tokens.

    The base lies beside the checkpoint for the KL between them. A pass holds its tokens, and either the logits of a benchmark
    that is scored with their distribution, or six distributions of some positions.
    """
    width = Width(shape.hidden, shape.layers, shape.keys, shape.inner, shape.vocabulary, None)
    tokens = size.batch_tokens or BATCH_SIZE * longest
    logits = shape.vocabulary * tokens
    scored = (size.bytes + 4) * min(SCORED_AT_ONCE, logits)
    compared = 24 * (min(LOGITS_AT_ONCE, logits) if size.batch_tokens else logits)
    return 2 * size.bytes * shape.parameters + tokens * width.bytes_per_token(size.bytes) + max(scored, compared)
