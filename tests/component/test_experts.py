"""A stronger model's answers over real HTTP: wrong ones are rejected, all are counted, and who is interrupted goes on."""

import json
import re
import subprocess
import sys

import pytest
from pydantic import SecretStr

from retain_core import settings as settings_module
from retain_core.errors import InputError, RetainError
from retain_core.public.experts import ask_expert, ask_in_style, here, served
from retain_core.public.folder import folder_of, read_counts, write_public
from retain_core.public.server import Server
from retain_core.study_file import load_study, read_study
from tests.chat import Chat
from tests.conftest import ROOT, environment
from tests.public import raw_rows
from tests.tiny import write_tiny

TEXT = """
study: experts
base: {base}
target: mmlu_cot
retention: [math_cot]
methods: [{methods}]
controls: []
learning_rates: [1.0e-2]
seeds: [0]
data:
  longest_answer: 12
  sizes:
    mmlu_cot: {{train: 20, items: 5}}
    math_cot: {{items: 5}}
"""
RIGHT = "It follows. The answer is: B"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A home with data for a study, which is not read yet."""
    monkeypatch.setenv("RETAIN_HOME", str(tmp_path / "home"))
    settings_module.settings.cache_clear()
    (tmp_path / "study.yaml").write_text(TEXT.format(base="acme/tiny", methods="sft"))
    for name, sizes in unread(tmp_path).data.sizes.items():
        write_public(tmp_path / "home", name, raw_rows(name, 40), None, sizes)
    yield tmp_path
    settings_module.settings.cache_clear()


def unread(folder):
    text = read_study(folder / "study.yaml", fetched=False)
    return text.study(text.raw)


def folder(place):
    return folder_of(place / "home", *unread(place).data.wanted("mmlu_cot"))


def answers(place, file="off_style.jsonl"):
    return [json.loads(line) for line in (folder(place) / file).read_text().splitlines()]


def number(question):
    return int(re.match(r"What is (\d+) plus 1", question)[1])


def mixed(question, _):
    """Right where the number is even, wrong where it ends in 1 or 3, cut where it ends in 5, refused at 7, right at 9."""
    n = number(question) % 10
    return {1: "The answer is: C", 3: "I am not sure", 5: (RIGHT, "length"), 7: 400}.get(n, RIGHT)


def asked_of(server, place):
    return list(ask_expert(place / "home", unread(place), served(server)))


def test_only_right_answers_are_kept_and_every_one_is_counted(place):
    prompts = [json.loads(line)["prompt"] for line in (folder(place) / "train.jsonl").read_text().splitlines()]
    with Chat(mixed) as chat:
        (line,) = asked_of(Server(chat.url, "big"), place)
    kept = [prompt for prompt in prompts if number(prompt) % 10 in (0, 2, 4, 6, 8, 9)]
    assert answers(place) == [{"prompt": prompt, "answer": RIGHT} for prompt in kept]
    sorts = [number(prompt) % 10 for prompt in prompts]
    wrong, cut, refused = (sum(n in some for n in sorts) for some in ((1, 3), (5,), (7,)))
    assert min(wrong, cut, refused) > 0
    counts = {"model": "big", "asked": 20, "right": len(kept), "wrong": wrong, "cut": cut, "refused": refused}
    assert read_counts(folder(place))["experts"] == {"off_style": counts}
    words = f"mmlu_cot: 20 answers of big: {len(kept)} right and kept, {wrong} wrong, {cut} cut, {refused} refused"
    assert line.startswith(words)
    assert {(body["model"], body["temperature"], body["max_tokens"]) for body in chat.asked} == {("big", 0.0, 12)}
    study = load_study(place / "study.yaml")
    assert words in study.own.public_lines()
    assert study.own.target.answers


def test_who_is_interrupted_goes_on_and_asks_nothing_twice(place):
    with (
        Chat(lambda *_: RIGHT if len(chat.asked) <= 7 else 500) as chat,
        pytest.raises(RetainError, match="run the same command again"),
    ):
        asked_of(Server(chat.url, "big", first_wait=0.001), place)
    log = folder(place) / "asked_off_style.jsonl"
    assert len(log.read_text().splitlines()) <= 1 + 7
    done = {json.loads(line)["prompt"] for line in log.read_text().splitlines()[1:]}
    with log.open("a") as stream:
        stream.write('{"prompt": "half a li')
    with Chat(lambda *_: RIGHT) as chat:
        asked_of(Server(chat.url, "big"), place)
        assert len(chat.asked) == 20 - len(done)
        assert not done & {body["messages"][0]["content"] for body in chat.asked}
        assert len(answers(place)) == 20
        asked_of(Server(chat.url, "big"), place)
        assert len(chat.asked) == 20 - len(done)
        with pytest.raises(InputError, match="has answers of big; remove that file to ask other instead"):
            asked_of(Server(chat.url, "other"), place)


def test_a_server_that_stumbles_is_asked_again(place):
    with Chat(lambda _, times: 503 if times == 1 else 429 if times == 2 else RIGHT) as chat:
        asked_of(Server(chat.url, "big", first_wait=0.001), place)
    assert len(chat.asked) == 60
    assert len(answers(place)) == 20


@pytest.mark.parametrize(
    ("says", "address", "words"),
    [
        (lambda *_: "The answer is: A", "", "none of 20 answers of big is right"),
        (lambda *_: 400, "", 'big refuses every request: {"error": "this is 400"}'),
        (lambda *_: RIGHT, "/nowhere", "has no /chat/completions, or no model 'big'"),
        (lambda *_: RIGHT, "not an address", "is no address of a server"),
    ],
)
def test_what_gives_no_answers_is_one_sentence(place, says, address, words):
    with Chat(says) as chat, pytest.raises(RetainError) as error:
        asked_of(Server(chat.url + address if address.startswith("/") else address or chat.url, "big"), place)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert not (folder(place) / "off_style.jsonl").exists()


def test_the_key_is_sent_and_stands_nowhere(place):
    key = "sk-a-secret-of-ours"
    with Chat(lambda *_: RIGHT, key=key) as chat:
        with pytest.raises(InputError, match=r"refuses the key \(HTTP 401\); set RETAIN_EXPERT_KEY"):
            asked_of(Server(chat.url, "big"), place)
        server = Server(chat.url, "big", SecretStr(key))
        (line,) = asked_of(server, place)
    assert set(chat.keys) == {f"Bearer {key}"}
    assert key not in line + repr(server)
    assert not [path for path in place.rglob("*") if path.is_file() and key in path.read_text()]


def test_the_base_says_the_answers_in_its_own_words_and_they_are_judged_again(place):
    with pytest.raises(InputError, match="there are no answers of a stronger model to rewrite"):
        list(ask_in_style(place / "home", unread(place), served(Server("http://127.0.0.1:9", "small"))))
    with Chat(mixed) as chat:
        asked_of(Server(chat.url, "big"), place)
    kept = answers(place)
    with Chat(lambda question, _: "B, I say. The answer is: B" if number(question) % 4 else "The answer is: D") as chat:
        (line,) = ask_in_style(place / "home", unread(place), served(Server(chat.url, "acme/tiny")))
    assert {body["messages"][0]["content"].count(RIGHT) for body in chat.asked} == {1}
    file = f"in_style-{unread(place).base_name()}.jsonl"
    right = [row["prompt"] for row in kept if number(row["prompt"]) % 4]
    assert answers(place, file) == [{"prompt": prompt, "answer": "B, I say. The answer is: B"} for prompt in right]
    assert f"{len(kept)} of them in the words of acme/tiny: {len(right)} right and kept, {len(kept) - len(right)} wrong" in line
    (place / "study.yaml").write_text(TEXT.format(base="acme/tiny", methods="sft, sft_in_style"))
    assert set(load_study(place / "study.yaml").own.target.experts) == {"off_style", "in_style"}
    (place / "study.yaml").write_text(TEXT.format(base="acme/other", methods="sft, sft_in_style"))
    with pytest.raises(InputError, match="in the base's own words, which are not there"):
        load_study(place / "study.yaml")


def test_a_base_on_this_machine_is_sampled_and_judged_too(place):
    base = write_tiny(place / "base", [str(row) for row in raw_rows("mmlu_cot", 40)["test"]])
    (place / "study.yaml").write_text(TEXT.format(base=base, methods="sft"))
    with Chat(lambda *_: RIGHT) as chat:
        asked_of(Server(chat.url, "big"), place)
    with pytest.raises(RetainError, match=f"none of 20 answers of {base} is right; they are in"):
        list(ask_in_style(place / "home", unread(place), here(unread(place), base)))
    (log,) = folder(place).glob("asked_in_style-*.jsonl")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines[0] == {"model": str(base)}
    assert len(lines) == 21
    assert {line["outcome"] for line in lines[1:]} <= {"wrong", "cut"}


def test_the_command_asks_and_says_what_it_got(place):
    (place / "study.yaml").write_text(TEXT.format(base="lab/smoke", methods="sft"))
    more = ["--expert-model", "big"]
    with Chat(mixed, key="sk-a-secret-of-ours") as chat:
        command = [sys.executable, "-m", "flows.cli", "prefetch", str(place / "study.yaml"), "--experts", chat.url, *more]
        settings = environment(place / "home") | {"RETAIN_EXPERT_KEY": "sk-a-secret-of-ours", "HF_HUB_OFFLINE": ""}
        done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert re.search(r"mmlu_cot: 20 answers of big: \d+ right and kept", done.stdout)
    assert "sk-a-secret-of-ours" not in done.stdout + done.stderr
    del command[-4:-2]
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=500)
    assert (done.returncode, done.stderr) == (2, "retain: --experts URL and --expert-model NAME belong together\n")
