"""What is checked of a base before it is trained: each mistake in real tokenizers is one sentence with its mend."""

import json
import shutil

import pytest

from retain_core.errors import InputError
from retain_core.own.target import TargetFiles, seal_target
from retain_core.store import Store
from retain_core.training.checks import check_base, first_prompt
from retain_core.training.encode import read_tokenizer
from tests.conftest import ROOT, manifests, run_plain
from tests.small_model import TEMPLATE, write_tiny

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder for models; `tiny` is as it should be."""
    made = tmp_path_factory.mktemp("models")
    write_tiny(made / "tiny", context=128)
    return made


@pytest.fixture
def target(tmp_path):
    """A target of two rows."""

    def sealed(long=1):
        rows = {
            "train": [{"prompt": "may i hug " * long, "answer": "yes"}],
            "items": [{"prompt": "may i go ?", "answer": "no"}],
        }
        for name, lines in rows.items():
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
        (tmp_path / "verify.py").write_text("def right(answer, row): return True\n")
        files = TargetFiles(name="t", train="train.jsonl", items="items.jsonl", verifier="verify:right")
        return seal_target(files, tmp_path)

    return sealed


def with_tokenizer(models, name, template=TEMPLATE, **changes):
    """A copy of the model whose tokenizer says something else."""
    folder = shutil.copytree(models / "tiny", models / name, dirs_exist_ok=True)
    made = read_tokenizer(folder)
    for key, value in changes.items():
        setattr(made, key, value)
    made.chat_template = template
    made.save_pretrained(folder)
    if template is None:
        (folder / "chat_template.jinja").unlink(missing_ok=True)
    return folder


def refused(folder, own):
    with pytest.raises(InputError) as caught:
        check_base(folder, own)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value) or "jsonl" in str(caught.value)
    return str(caught.value)


def test_a_base_as_it_should_be_passes(models, target):
    check_base(models / "tiny", target())
    check_base(models / "tiny", None)


def test_a_missing_template(models, target):
    assert "has no chat template; add chat_template.jinja" in refused(with_tokenizer(models, "bare", None), target())


def test_a_stop_token_that_carries_no_loss(models, target):
    said = refused(with_tokenizer(models, "chatml", CHATML), target())
    assert "does not end an answer with the stop token '</s>' (it writes '<|im_end|>'), so the model would never learn" in said
    assert "set `eos_token` in tokenizer_config.json" in said
    mended = with_tokenizer(models, "mended", CHATML)
    made = read_tokenizer(mended)
    made.add_special_tokens({"eos_token": "<|im_end|>"})
    made.save_pretrained(mended)
    check_base(mended, target())
    open_ended = TEMPLATE.replace("{{ eos_token }}", "")
    assert "(it writes nothing)" in refused(with_tokenizer(models, "open", open_ended), target())


def test_two_tokens_of_beginning(models, target):
    twice = "{{ bos_token }}" + TEMPLATE
    assert "begins a prompt with '<s>' twice; leave one" in refused(with_tokenizer(models, "twice", twice), target())


def test_a_beginning_that_only_the_tokenizer_writes(models, target):
    from tokenizers.processors import TemplateProcessing

    folder = with_tokenizer(models, "added", TEMPLATE.replace("{{ bos_token }}", ""))
    made = read_tokenizer(folder)
    made.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    made.save_pretrained(folder)
    assert "training and evaluation would read different prompts; begin the template with" in refused(folder, target())


def test_a_template_that_changes_what_it_wrote(models, target):
    other = TEMPLATE.replace("[assistant] {% endif %}", "[helper] {% endif %}")
    assert "renders a prompt differently when an answer follows it; keep" in refused(
        with_tokenizer(models, "other", other), target()
    )


def test_a_template_that_fails(models, target):
    broken = "{{ raise_exception('roles must alternate') }}"
    assert "does not render a question with its answer: roles must" in refused(
        with_tokenizer(models, "broken", broken), target()
    )


def test_a_prompt_longer_than_the_context(models, target):
    said = refused(models / "tiny", target(long=60))
    assert said.split(":")[1] == "1"
    assert "and the base reads 128; shorten it" in said


def test_the_first_prompt_is_on_record(finished_home, smoke_plan):
    found = [m for name, m in manifests(finished_home).items() if "/arm/" in name]
    tokenizer = read_tokenizer(smoke_plan.base_path)
    for arm in smoke_plan.arms:
        kept = next(m["meta"]["first_prompt"] for m in found if m["key"] == arm.spec.key)
        assert kept == json.loads(json.dumps(first_prompt(arm.spec, smoke_plan.base_path)))
        assert kept["stop"] == [tokenizer.eos_token, tokenizer.eos_token_id]
        assert kept["prompt"] in tokenizer.decode(kept["token_ids"])


def test_a_study_stops_before_anything_is_asked(models, tmp_path):
    copy = shutil.copytree(ROOT / "examples" / "own_method", tmp_path / "mine")
    text = (copy / "study.yaml").read_text().replace("lab/smoke", str(with_tokenizer(models, "chatml", CHATML)))
    (copy / "study.yaml").write_text(text.replace("  - {benchmark: facts, near: true}", "  # "))
    with pytest.raises(Exception, match="so the model would never learn to stop"):
        run_plain(copy / "study.yaml", tmp_path / "home")
    assert Store(tmp_path / "home" / "artifacts").keys("evaluation") == []
