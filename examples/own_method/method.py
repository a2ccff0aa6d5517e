"""Best of n: SFT on the base's own right answers, and on an accepted one where it has none in `tries` samples."""

import random
from itertools import islice

from datasets import Dataset
from trl import SFTTrainer

from retain_core.training.configs import sft_config
from retain_core.training.encode import encode_exchanges
from retain_core.training.frozen import FrozenBase, labelled
from retain_core.training.record import TrainingRecord


def build(spec, base, tokenizer, target, common):
    """(trainer, count) as `retain_core.own.method.Builder` asks for."""
    sequences, tries = spec.updates * spec.sequences_per_update, spec.config["options"]["tries"]
    problems = list(islice(target.problems(spec.seed), sequences))
    frozen = FrozenBase(base, tokenizer, target.longest_answer)
    samples = frozen.sample([problem.prompt for problem in problems for _ in range(tries)], temperature=1.0)
    draw = random.Random(spec.seed)
    text = []
    for number, problem in enumerate(problems):
        own = [answer for answer, finished in samples[number * tries :][:tries] if finished and problem.right(answer)]
        text.append((problem.prompt, draw.choice(own or target.right_answers(problem))))
    rows = encode_exchanges(tokenizer, text)
    trainer = SFTTrainer(
        model=str(base), args=sft_config(**common), processing_class=tokenizer, train_dataset=Dataset.from_list(rows)
    )
    prompts = len({prompt for prompt, _ in text})
    return trainer, lambda _: TrainingRecord(spec.updates, sequences, prompts, labelled(rows), frozen.tokens)
