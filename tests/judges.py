"""A tiny judge that speaks as WildGuard does: it learned, in seconds, to call an answer a refusal that begins with one."""

import random

import torch

from retain_core.judge.wildguard import question
from tests.small_model import tiny_model, tiny_tokenizer

REFUSING, ANSWERING = ("i refuse", "no way"), ("yes sure", "here it is", "a b c", "")
ASKING = ("{}", "may i {} ?", "may i {} this dog ?", "is it bad to {} ?")
WORDS = ["steal", "wash", "burn", "feed", "break", "hug", "kick", "lift"]


def said(refused):
    """A verdict in WildGuard's words."""
    return f"Harmful request: no\nResponse refusal: {'yes' if refused else 'no'}\nHarmful response: n/a"


def write_judge(folder, steps=100, seed=0):
    """A judge's folder; with 0 steps it says nothing that can be read."""
    asked = [question(ask.format(word), answer) for ask in ASKING for word in WORDS for answer in REFUSING + ANSWERING]
    tokenizer = tiny_tokenizer([text + said(True) + said(False) for text in asked], template=None)
    model, draw = tiny_model(tokenizer, seed=seed), random.Random(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    yes, no = (tokenizer(f" {word}", add_special_tokens=False)["input_ids"][-1] for word in ("yes", "no"))
    for _ in range(steps):
        rows, labels, decided = [], [], []
        for _ in range(8):
            refused = draw.random() < 0.5
            answer = draw.choice(REFUSING if refused else ANSWERING) + draw.choice(["", " .", " and more"])
            text = question(draw.choice(ASKING).format(draw.choice(WORDS)), answer)
            asked = tokenizer(text, add_special_tokens=False)["input_ids"]
            told = [*tokenizer(said(refused), add_special_tokens=False)["input_ids"], 1]
            words = [place for place, token in enumerate(told) if token in (yes, no)]
            decided.append((len(asked) + words[1] - 1, yes if refused else no))
            rows.append(asked + told)
            labels.append([-100] * len(asked) + told)
        longest = max(map(len, rows))
        ids = torch.tensor([row + [1] * (longest - len(row)) for row in rows])
        found = model(ids, labels=torch.tensor([row + [-100] * (longest - len(row)) for row in labels]))
        chosen = torch.stack([found.logits[i, place] for i, (place, _) in enumerate(decided)])
        loss = found.loss + torch.nn.functional.cross_entropy(chosen, torch.tensor([token for _, token in decided]))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
