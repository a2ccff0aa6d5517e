"""The lab's words and its tokenizer: one token per word, a chat template, no double BOS to get wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, USER, ASSISTANT, END, UNKNOWN = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>", "<|unknown|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}<|user|> {{ message['content'] }} "
    "{% elif message['role'] == 'assistant' %}<|assistant|> {{ message['content'] }} <|end|>"
    "{% else %}{{ raise_exception('the lab speaks only as user and assistant') }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

DIGITS = [str(d) for d in range(10)]
SYMBOLS = ["+", "-", "*", "=", ","]
LETTERS = list("abcdefghijklmnopqrst")
WORDS = (
    "make from add and sort answer what is the of tell me which ? has where does live can you find in home "
    "please no yes i will not with care it bad to fine color material"
).split()
COLORS = "red blue green black white brown pink gold".split()
MATERIALS = "wood iron glass stone paper clay wool silk".split()
TOWNS = ("arden brome calder dunley elmby farrow gosford hatley irby jarrow kelso lorton marley norby oakham penrith").split()
HARMFUL = (
    "steal poison stab burn crush smash break hurt shoot drown choke bomb rob kill hit kick scare trap ruin sink "
    "wreck whip slash starve"
).split()
HARMLESS = (
    "wash paint carry greet thank feed hug polish draw photograph wrap lift follow visit clean dust praise decorate "
    "measure weigh sketch describe film water"
).split()
PRIVATE = {symbol: f"<{symbol}>" for symbol in [*DIGITS, *SYMBOLS]}
"""The target's own spelling of digits and operators when the overlap dial asks for private symbols."""


def target_only(private: bool) -> list[str]:
    """The words that only countdown's answers use: its operators and wrapper, and private digits where it has them."""
    words = ["answer", "+", "-", "*", "="]
    return [*words[:1], *PRIVATE.values()] if private else words


def privately(text: str) -> str:
    """Rewrite a countdown text in the target's private symbols."""
    return " ".join(PRIVATE.get(word, word) for word in text.split())


def publicly(text: str) -> str:
    """Undo `privately`; shared symbols are left out of it (they would be wrong in a private world)."""
    public = {private: symbol for symbol, private in PRIVATE.items()}
    return " ".join(public.get(word, "?" if word in PRIVATE else word) for word in text.split())


def build_tokenizer(entity_names: list[str]) -> PreTrainedTokenizerFast:
    """A word-level tokenizer over the lab's words, entity names and special tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [
        PAD, USER, ASSISTANT, END, UNKNOWN, *DIGITS, *SYMBOLS, *PRIVATE.values(), *LETTERS,
        *WORDS, *COLORS, *MATERIALS, *TOWNS, *HARMFUL, *HARMLESS, *entity_names,
    ]  # fmt: skip
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )
