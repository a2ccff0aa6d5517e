"""The exact score of the new targets is what accuracy under sampling estimates, on a small model that half knows them."""

import json

import pytest
import torch

from retain_core.evaluation.exact import exact_items, exact_scores
from retain_core.lab.base import build_model
from retain_core.lab.spec import lab_spec
from retain_core.lab.vocabulary import build_tokenizer
from retain_core.lab.world import World
from retain_core.training.encode import encode_exchanges, padded
from retain_core.training.sampling import sample_answers

ITEMS, SAMPLES = 3, 1500


@pytest.mark.parametrize("name", ["new_facts", "new_format"])
def test_exact_score_is_the_accuracy_under_sampling(name, tmp_path, one_thread):
    """Trained for a moment on both accepted forms and as many wrong ones, the model is right some of the time."""
    spec = lab_spec("smoke", hidden=32, layers=1, heads=2)
    world = World(spec)
    tokenizer = build_tokenizer(world.entities)
    items = world.items(name)[:ITEMS]
    model = build_model(spec, tokenizer)
    wrong = [items[(i + 1) % ITEMS].extra["valid"][0] for i in range(ITEMS)]
    texts = [(item.prompt, a) for item, other in zip(items, wrong, strict=True) for a in (*item.extra["valid"], other, other)]
    ids, labels, mask = padded(encode_exchanges(tokenizer, texts), tokenizer.pad_token_id)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        model(ids, labels=labels, attention_mask=mask).loss.backward()
        optimizer.step()
    model.eval()
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item.record(i)) + "\n" for i, item in enumerate(items)))
    exact = exact_scores(model, exact_items(tokenizer, tmp_path / "items.jsonl"))
    torch.manual_seed(0)
    prompts = [item.prompt for item in items for _ in range(SAMPLES)]
    answers = sample_answers(model, tokenizer, prompts, temperature=1.0, max_new_tokens=16)
    for i, item in enumerate(items):
        drawn = answers[i * SAMPLES : (i + 1) * SAMPLES]
        sampled = sum(finished and text in item.extra["valid"] for text, finished, _ in drawn) / SAMPLES
        assert 0.02 < exact[i] < 0.98
        assert abs(sampled - exact[i]) < 4 * (exact[i] * (1 - exact[i]) / SAMPLES) ** 0.5
