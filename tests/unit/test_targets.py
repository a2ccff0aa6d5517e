"""The lab's targets: what is held out, what the verifier accepts, and that none of them touches the others' text."""

import hashlib
import itertools
import json
import random
import re
from itertools import islice

import pytest

from retain_core.evaluation.benchmarks import BENCHMARKS
from retain_core.lab.benchmarks.scoring import any_valid
from retain_core.lab.dataset import FORMS, benchmark_names
from retain_core.lab.spec import lab_spec
from retain_core.lab.targets import LAB_TARGETS
from retain_core.lab.vocabulary import COLORS, LETTERS, MATERIALS, build_tokenizer
from retain_core.lab.world import MIXTURE, World
from retain_core.study import Study

NEW = ("new_facts", "new_format")
UNCHANGED = {
    "mixture": "40a2c74a0dee984b489b74ffb96e93d0dc9ffdd4dbf6b5617e2b2ee553be35c3",
    "countdown": "1cc869a2c378a9ce4b667412b832f2077909912605b2f51b71a65747c86fc4f9",
    "addition": "bd8d79416b08e308e3df69443bfb8f4c81c958ce7df2a49861a54bfa30afb998",
    "sorting": "ce4acb2fcf224e96b8454334508efa95c9821498c621589266b6641a62e683cd",
    "facts": "779be8d73685ce02b5e46789f8a51c66f61f007bde59dd6db05a4cec5a302cba",
    "places": "2d2ffea85a979cd8d9c884b4b54f83e2d06d730cfdfd0ffc42e99ef4a85a6acb",
    "safety": "12a98df1e7b0bc3378242c707241d3cee46b87cc2a6f8085cdeff38f7bcffc86",
}
"""Taken before there was a second target. A new skill must draw from a stream of its own; renew these only with LAB_VERSION."""


@pytest.fixture(scope="module")
def world():
    return World(lab_spec("tiny"))


@pytest.fixture(scope="module")
def worlds(world):
    """Target -> a world whose base knows what it is made of."""
    in_steps = World(lab_spec("tiny", operands=3, largest_number=12, steps=True))
    return {name: in_steps if name == "countdown_steps" else world for name in LAB_TARGETS}


def target_of(world, name, prompts="varied"):
    return LAB_TARGETS[name](world, prompts)


def key_in(prompt):
    """The problem that a prompt asks, read from the prompt alone: an entity's letters, or those to sort, in order."""
    if prompt.startswith("sort "):
        return tuple(sorted(prompt.removesuffix(" with and").split()[1:]))
    return " ".join(word for word in prompt.split() if word in LETTERS)


def asked_in_training(world, name):
    """Prompts of training problems, enough of them."""
    return {p.prompt for p in islice(target_of(world, name).problems(0), 3000)}


def stream(world, name, style, count=2000):
    return list(islice(target_of(world, name).exchanges(style, "random", 0), count))


def test_a_further_target_changes_no_text_of_the_base_and_no_item(world):
    text = repr([world.sample(random.Random(f"mixture 0 {i}")) for i in range(3000)])
    found = {"mixture": hashlib.sha256(text.encode()).hexdigest()}
    for name in [n for n in benchmark_names(world.spec) if n not in NEW]:
        records = [item.record(i) for i, item in enumerate(world.items(name))]
        found[name] = hashlib.sha256(json.dumps(records).encode()).hexdigest()
    assert found == UNCHANGED


def test_the_support_dial_changes_no_item(world):
    turned = World(lab_spec("tiny", format_share=0.5))
    assert all(turned.items(name) == world.items(name) for name in benchmark_names(world.spec))


def test_every_target_has_a_benchmark_with_a_verifier_and_the_other_way_round():
    assert set(LAB_TARGETS) == {b.verifier for b in BENCHMARKS.values() if b.verifier}


@pytest.mark.parametrize("name", NEW)
def test_training_never_asks_a_held_out_item(world, name):
    items = {item.prompt for item in world.items(name)}
    assert len(items) >= 400
    assert not items & asked_in_training(world, name)
    for style in ("off_style", "in_style", "placebo", "base_mixture"):
        assert not items & {prompt for prompt, _ in stream(world, name, style)}


def test_new_facts_are_held_out_by_phrasing_and_clustered_by_entity(world):
    items, phrasings = world.items("new_facts"), {}
    for prompt in asked_in_training(world, "new_facts"):
        entity = key_in(prompt)
        phrasings.setdefault(entity, set()).add(prompt.replace(entity, "{}"))
    assert set(phrasings) == set(world.new_entities) == {item.cluster for item in items}
    assert all(len(found) == 2 for found in phrasings.values())
    assert len(phrasings) >= 40
    for item in items:
        assert item.prompt.count(item.cluster) == 1
        assert item.prompt.replace(item.cluster, "{}") not in phrasings[item.cluster]


def test_new_facts_are_many_and_even(world):
    facts = [World(lab_spec("tiny", seed=seed)).new_entities.values() for seed in range(4)]
    assert len(set(itertools.chain(*facts))) == len(COLORS) * len(MATERIALS) == BENCHMARKS["new_facts"].choices == 64
    assert set(World(lab_spec("tiny", seed=1)).new_entities) != set(world.new_entities)


def test_the_new_format_is_held_out_by_the_set_of_letters(world):
    held_out = {key_in(item.prompt) for item in world.items("new_format")}
    turned = World(lab_spec("tiny", format_share=1.0))
    rng = random.Random(0)
    base = {key_in(turned.sample(rng, {"new_format": 1.0})[0]) for _ in range(3000)}
    assert not held_out & ({key_in(prompt) for prompt in asked_in_training(world, "new_format")} | base)
    sorting = {item.prompt for item in world.items("sorting")}
    for order in itertools.permutations("abcde"):
        prompt = world.new_format_prompt(tuple("abcde"), random.Random(str(order)))
        assert prompt.removesuffix(" with and") not in sorting


@pytest.mark.parametrize("name", NEW)
def test_prompts_are_varied_or_frozen(world, name):
    few = target_of(world, name).keys[:20]
    for prompts, most in (("varied", 2), ("frozen", 1)):
        asked = {}
        for problem in islice(target_of(world, name, prompts).problems(0, few), 200):
            asked.setdefault(problem.key, set()).add(problem.prompt)
        assert len(asked) == 20
        assert all(min(2, len(found)) == most for found in asked.values())


@pytest.mark.parametrize("name", NEW)
@pytest.mark.parametrize("style", ["off_style", "in_style"])
def test_the_expert_is_right_and_the_wrapper_is_off_style_only(world, name, style):
    target = target_of(world, name)
    for prompt, answer in stream(world, name, style):
        assert target.accepts(key_in(prompt), answer)
        assert target.accepts(key_in(prompt), f" {answer}\n")
        assert (answer.split()[0] == "answer" and "=" in answer.split()) == (style == "off_style")


@pytest.mark.parametrize("name", NEW)
def test_the_placebo_is_always_wrong_in_the_same_form(world, name):
    target = target_of(world, name)
    for prompt, answer in stream(world, name, "placebo"):
        key = key_in(prompt)
        _, wrapped = target.accepted(key)
        assert not target.accepts(key, answer)
        assert re.fullmatch(FORMS[name], answer)
        assert len(answer.split()) == len(wrapped.split())
        if name == "new_facts":
            assert not set(world.new_entities[key]) & set(answer.split())
        else:
            assert sorted(answer.split()) == sorted(wrapped.split())


@pytest.mark.parametrize("name", NEW)
def test_the_verifier_accepts_exactly_what_is_valid(world, name):
    """Every fact and every order, bare and wrapped, and answers that nearly are one."""
    item, target = world.items(name)[0], target_of(world, name)
    if name == "new_facts":
        key, tail = item.cluster, " ="
        bare = [f"the color is {c} the material is {m}" for c in COLORS for m in MATERIALS]
    else:
        key = tuple(item.target.replace(" and ", " ").split())
        tail = f" = {len(key)}"
        bare = [" ".join((*order[:-1], "and", order[-1])) for order in itertools.permutations(key)]
        bare += [" ".join(key), " and ".join(key), item.target + " and", item.target.replace("and", "and and")]
    tried = [form for b in bare for form in (b, f"answer {b}{tail}", f"answer {b}", f"{b}{tail}", f"answer {b} = 9")]
    accepted = [answer for answer in tried if target.accepts(key, answer)]
    assert sorted(accepted) == sorted(item.extra["valid"])
    assert item.target == item.extra["valid"][0]
    row = {**item.record(0), "form": FORMS[name]}
    for answer in tried:
        scores = any_valid(row, [answer])
        assert scores["acc"] == (answer in accepted)
        assert scores["parsed"] >= scores["acc"]


def test_nothing_of_a_new_entity_leaks_into_the_base(world):
    rng = random.Random(1)
    texts = [" ".join(world.sample(rng)) for _ in range(40_000)]
    about = [t for t in texts if re.search(r"color|material", t)]
    assert about
    assert not any(set(t.split()) & set(LETTERS) for t in about)
    assert not any(" with and" in t for t in texts)


@pytest.mark.parametrize(("habit", "right"), [(0.0, 1.0), (0.6, 0.4), (1.0, 0.0)])
def test_support_dial_of_the_new_format(habit, right):
    world, rng = World(lab_spec("tiny", format_share=0.25, habit=habit)), random.Random(0)
    texts = [world.sample(rng) for _ in range(30_000)]
    asked = [(p, a) for p, a in texts if p.endswith(" with and")]
    plain = [(p, a) for p, a in texts if p.startswith("sort ") and not p.endswith(" with and")]
    assert (len(asked) + len(plain)) / len(texts) == pytest.approx(MIXTURE["sorting"], abs=0.01)
    assert len(asked) / (len(asked) + len(plain)) == pytest.approx(0.25, abs=0.03)
    assert sum(" and " in a for _, a in asked) / len(asked) == pytest.approx(right, abs=0.06)
    assert all(a.replace(" and", "").split() == sorted(p.split()[1:-2]) for p, a in asked)
    assert not any("and" in a for _, a in plain)


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("name", list(LAB_TARGETS))
def test_retention_text_has_every_skill_but_the_target(name, share):
    steps = name == "countdown_steps"
    target = target_of(World(lab_spec("tiny", format_share=share, steps=steps)), name)
    texts = [prompt for prompt, _ in islice(target.retention(0), 3000)]
    assert any(p.startswith("make ") for p in texts) == (not name.startswith("countdown"))
    assert any(p.endswith(" with and") for p in texts) == (share > 0 and name != "new_format")
    assert any(p.startswith("sort ") and not p.endswith(" with and") for p in texts)


@pytest.mark.parametrize("name", list(LAB_TARGETS))
def test_answers_fit_and_their_words_are_known(worlds, name):
    world = worlds[name]
    target, vocabulary = target_of(world, name), build_tokenizer(world.entities).get_vocab()
    longest = 0
    for problem in islice(target.problems(0), 300):
        for answer in target.right_answers(problem):
            assert len(answer.split()) < target.longest_answer <= BENCHMARKS[name].longest
            longest = max(longest, len(answer.split()))
            assert all(word in vocabulary for word in (problem.prompt + " " + answer).split())
    assert longest + 1 == target.longest_answer or name.startswith("countdown")  # these have room for more numbers


@pytest.mark.parametrize("name", list(LAB_TARGETS))
def test_spill_symbols_stand_in_no_other_answer(worlds, name):
    world = worlds[name]
    target, rng = target_of(world, name), random.Random(0)
    retained = {skill: share for skill, share in world.mixture.items() if skill != name}
    others = {w for _ in range(5000) for w in world.sample(rng, retained)[1].split()}
    off_style = {w for _, a in stream(world, name, "off_style", 300) for w in a.split()}
    assert not set(target.symbols) & others
    assert set(target.symbols) <= off_style


@pytest.mark.parametrize("name", list(LAB_TARGETS))
def test_a_study_can_have_any_target_with_the_others_as_retention(name):
    steps = name == "countdown_steps"
    unknown = "countdown" if steps else "countdown_steps"
    others = [{"benchmark": other, "near": True} for other in LAB_TARGETS if other not in (name, unknown)]
    study = Study.model_validate(
        {
            "study": "x", "base": {"model": "lab/tiny", "format_share": 0.25, "steps": steps}, "target": name,
            "retention": [*others, "sorting"], "methods": ["sft", "grpo"], "learning_rates": [3e-4], "seeds": [0],
        }
    )  # fmt: skip
    assert study.target == name
    assert study.base.lab().format_share == 0.25
