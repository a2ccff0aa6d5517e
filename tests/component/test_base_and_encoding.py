"""The base model's text, its tokenizer, and the exact score."""

import json
from pathlib import Path

import pytest
import torch

from retain_core.evaluation.exact import ExactItem, exact_items, exact_scores
from retain_core.lab import countdown
from retain_core.lab.base import _Collator, _Mixture, build_model
from retain_core.lab.spec import lab_spec
from retain_core.lab.vocabulary import build_tokenizer
from retain_core.lab.world import World
from retain_core.training.encode import encode_exchanges, encode_prompts
from retain_core.training.sampling import sample_answers


@pytest.fixture(scope="module")
def world():
    return World(lab_spec("smoke"))


def test_the_words_of_the_world_are_all_in_the_vocabulary(world):
    tokenizer = build_tokenizer(world.entities)
    rows = _Mixture(world, tokenizer, 3000)
    assert all(tokenizer.unk_token_id not in rows[i]["input_ids"] for i in range(3000))


def test_pretraining_text_is_what_the_chat_template_renders(world):
    import random

    tokenizer = build_tokenizer(world.entities)
    rows = _Mixture(world, tokenizer, 200)
    exchanges = [world.sample(random.Random(f"mixture {world.spec.seed} {i}")) for i in range(200)]
    assert [rows[i] for i in range(200)] == encode_exchanges(tokenizer, exchanges)


def test_only_the_answer_and_its_stop_token_carry_loss(world):
    tokenizer = build_tokenizer(world.entities)
    (row,) = encode_exchanges(tokenizer, [("add 1 2 and 3 4", "4 6")])
    kept = [t for t, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]
    assert tokenizer.decode(kept) == "4 6 <|end|>"
    assert tokenizer.decode(row["input_ids"]) == "<|user|> add 1 2 and 3 4 <|assistant|> 4 6 <|end|>"


def test_what_a_template_writes_behind_the_stop_token_is_no_part_of_the_answer(world):
    tokenizer = build_tokenizer(world.entities)
    usual = encode_exchanges(tokenizer, [("add 1 2 and 3 4", "4 6")])
    tokenizer.chat_template += "{% if not add_generation_prompt %} red{% endif %}"
    assert encode_exchanges(tokenizer, [("add 1 2 and 3 4", "4 6")]) == usual


def test_a_line_separator_ends_no_item(world, tmp_path):
    tokenizer = build_tokenizer(world.entities)
    doc = {"doc_id": 0, "prompt": "add 1\u20282", "valid": ["4 6"]}
    (tmp_path / "items.jsonl").write_text(json.dumps(doc, ensure_ascii=False) + "\n", encoding="utf-8")
    assert [item.doc_id for item in exact_items(tokenizer, tmp_path / "items.jsonl")] == [0]


def test_collator_pads_without_touching_the_loss(world):
    tokenizer = build_tokenizer(world.entities)
    rows = [_Mixture(world, tokenizer, 8)[i] for i in range(8)]
    batch = _Collator(tokenizer, 1)(rows)
    assert int(batch["attention_mask"].sum()) == sum(len(r["input_ids"]) for r in rows)
    assert bool((batch["labels"][batch["attention_mask"] == 0] == -100).all())


def test_the_seed_draws_the_weights(world):
    tokenizer = build_tokenizer(world.entities)
    one, again = (build_model(lab_spec("smoke"), tokenizer) for _ in range(2))
    other = build_model(lab_spec("smoke", seed=1), tokenizer)
    flat = [torch.cat([p.flatten() for p in m.parameters()]) for m in (one, again, other)]
    assert torch.equal(flat[0], flat[1])
    assert not torch.equal(flat[0], flat[2])


def plain_probability(model, prompt: list[int], answer: list[int]) -> float:
    with torch.no_grad():
        logits = model(torch.tensor([prompt + answer])).logits[0].double().log_softmax(-1)
    picked = [logits[len(prompt) - 1 + i, token] for i, token in enumerate(answer)]
    return float(torch.stack(picked).sum().exp())


def test_exact_score_is_the_plain_sum(base_model, smoke_plan):
    model, tokenizer = base_model
    items = exact_items(tokenizer, Path(smoke_plan.dataset.file("items/countdown.jsonl")))[:60]
    scores = exact_scores(model, items)
    for item in items[::7]:
        expected = sum(plain_probability(model, item.prompt, answer) for answer in item.answers)
        assert scores[item.doc_id] == pytest.approx(expected, rel=1e-4, abs=1e-12)


def test_exact_score_does_not_depend_on_its_neighbours(base_model, smoke_plan):
    model, tokenizer = base_model
    items = exact_items(tokenizer, Path(smoke_plan.dataset.file("items/countdown.jsonl")))[:120]
    together, alone = exact_scores(model, items), exact_scores(model, items[5:6])
    assert alone[items[5].doc_id] == pytest.approx(together[items[5].doc_id], rel=1e-4)


def test_exact_score_agrees_with_sampling(base_model):
    """An easy made-up item, so that a few thousand samples say something."""
    model, tokenizer = base_model
    prompt = "what is the color of"
    (ids,) = encode_prompts(tokenizer, [prompt])
    torch.manual_seed(0)
    answers = sample_answers(model, tokenizer, [prompt] * 4000, temperature=1.0, max_new_tokens=14)
    texts = [text for text, finished, _ in answers if finished]
    common = [max(set(texts), key=texts.count), *sorted(set(texts))[:3]]
    right = sorted(set(common))
    encoded = [row["input_ids"][len(ids) :] for row in encode_exchanges(tokenizer, [(prompt, a) for a in right])]
    exact = exact_scores(model, [ExactItem(0, ids, encoded)])[0]
    sampled = sum(text in right for text in texts) / len(answers)
    error = (exact * (1 - exact) / len(answers)) ** 0.5
    assert abs(sampled - exact) < 4 * error + 1e-9
    assert exact > 0.001


def test_exact_items_hold_every_valid_answer(smoke_plan, base_model):
    _, tokenizer = base_model
    items = exact_items(tokenizer, Path(smoke_plan.dataset.file("items/countdown.jsonl")))
    problem = World(smoke_plan.world).items("countdown")[0]
    valid = countdown.valid_answers(tuple(problem.extra["numbers"]), problem.extra["value"])
    decoded = [tokenizer.decode(a, skip_special_tokens=True) for a in items[0].answers]
    assert tuple(decoded) == valid
