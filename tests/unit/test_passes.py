"""How many rows go through a model at once: never more tokens than the budget, and none is left behind."""

import random
from itertools import pairwise
from types import SimpleNamespace

import pytest

from retain_core.lab.base import build_model
from retain_core.lab.spec import PRESETS, lab_spec
from retain_core.lab.vocabulary import build_tokenizer
from retain_core.lab.world import World
from retain_core.passes import LOGITS_AT_ONCE, MOST_ROWS, WORKSPACE, Width, groups, stretches, tokens_at_once


def config(**shape):
    """A config as transformers has it; Qwen2.5-1.5B unless said otherwise."""
    usual = {
        "hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
        "intermediate_size": 8960, "vocab_size": 151_936, "max_position_embeddings": 32_768,
    }  # fmt: skip
    made = SimpleNamespace(**{**usual, **shape})
    made.get_text_config = lambda: made
    return made


@pytest.mark.parametrize("seed", range(20))
def test_groups_are_neighbours_within_both_limits_and_no_smaller_than_they_must_be(seed):
    rng = random.Random(seed)
    lengths = [rng.randint(1, 60) for _ in range(rng.randint(1, 200))]
    rows, tokens = rng.randint(1, 30), rng.choice([None, rng.randint(1, 400)])
    found = groups(lengths, rows, tokens)
    assert [place for part in found for place in range(part.start, part.stop)] == list(range(len(lengths)))

    def fits(some):
        return len(some) == 1 or (len(some) <= rows and (tokens is None or len(some) * max(some) <= tokens))

    assert all(fits(lengths[part]) for part in found)
    assert not any(fits(lengths[one.start : two.start + 1]) for one, two in pairwise(found))
    assert groups([], rows, tokens) == []


def test_without_a_budget_groups_are_of_equal_size():
    assert groups([5] * 1000, 400) == [slice(0, 400), slice(400, 800), slice(800, 1000)]


def test_stretches_cover_every_position_with_few_logits():
    rows, positions, words = 7, 1000, 150_000
    found = list(stretches(rows, positions, words))
    assert [place for part in found for place in range(part.start, part.stop)] == list(range(positions))
    assert all(rows * (part.stop - part.start) * words <= LOGITS_AT_ONCE for part in found)
    assert len(found) > 5
    assert list(stretches(10**6, 3, words)) == [slice(0, 1), slice(1, 2), slice(2, 3)], "one position at least"


def test_the_budget_falls_with_width_and_precision_and_holds_its_bytes():
    small, wide = config(), config(hidden_size=4096, num_hidden_layers=32, num_key_value_heads=8, intermediate_size=14_336)
    assert tokens_at_once(wide, 2) < tokens_at_once(small, 2)
    assert tokens_at_once(small, 4) == pytest.approx(tokens_at_once(small, 2) / 2, abs=1)
    for shape in (small, wide):
        tokens = tokens_at_once(shape, 2)
        assert tokens * Width.of(shape).bytes_per_token(2) <= WORKSPACE
        assert tokens > 8000, "several answers of 3,000 tokens at once"


def test_many_words_alone_are_reason_enough_for_a_budget():
    tiny = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1,
            "intermediate_size": 64, "max_position_embeddings": 1024}  # fmt: skip
    assert tokens_at_once(config(**tiny, vocab_size=600)) is None
    assert tokens_at_once(config(**tiny, vocab_size=150_000)) is not None
    assert tokens_at_once(config(**{**tiny, "max_position_embeddings": None}, vocab_size=600)) is not None


@pytest.mark.parametrize("preset", PRESETS)
def test_no_batch_of_the_lab_is_ever_made_smaller(preset):
    spec = lab_spec(preset)
    tokenizer = build_tokenizer(World(spec).entities)
    small = build_model(spec.model_copy(update={"layers": 1}), tokenizer).config
    small.num_hidden_layers = spec.layers
    assert (tokens_at_once(small) is None) == (preset != "large")  # whose many names alone make a budget
    assert groups([small.max_position_embeddings] * 3 * MOST_ROWS, MOST_ROWS, tokens_at_once(small)) == groups(
        [1] * 3 * MOST_ROWS, MOST_ROWS
    )
