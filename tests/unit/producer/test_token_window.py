from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers

from docmill.catalogue.gguf_file import read_header
from docmill.producer.chunking.token_window import EncodedText, TokenWindow, encode_around, splits_at_words
from docmill.producer.gguf_tokenizer import build_tokenizer
from docmill.producer.model_text import ModelText
from docmill.producer.tokenizer import ModelTokenizer
from tests.unit.producer.conftest import NASTY, write_tiny_gguf

# Words on both sides of every border, and everything that could blur one.
PARTS = st.one_of(
    st.sampled_from(NASTY), st.sampled_from(["a b", " a", "b ", " ", "\u017f ", "'s x", "é o", "1 a", "a 1"])
)
TEXTS = st.lists(PARTS, max_size=12).map("".join)


@pytest.fixture(scope="module", params=["smollm", "gpt-2", "llama-bpe", "qwen2"])
def tokenizer(
    request: pytest.FixtureRequest, model_text: ModelText, tmp_path_factory: pytest.TempPathFactory
) -> ModelTokenizer:
    """The demo model's vocabulary behind each way of parting words that a GGUF can name."""
    header = read_header(write_tiny_gguf(tmp_path_factory.mktemp("gguf") / "m.gguf", pre=request.param))
    other = Tokenizer.from_str(model_text.tokenizer._tokenizer.to_str())
    other.pre_tokenizer = build_tokenizer(header, "m").pre_tokenizer
    return ModelTokenizer(other, model_text.tokenizer.vocabulary)


@given(before=TEXTS, text=TEXTS, after=TEXTS, start=st.integers(0, 400), length=st.integers(0, 400))
@settings(max_examples=60)
def test_ids_taken_from_a_whole_are_those_of_the_part_encoded_alone(
    tokenizer: ModelTokenizer, before: str, text: str, after: str, start: int, length: int
) -> None:
    assert tokenizer.splits_at_words
    window = TokenWindow(before + text + after, tokenizer)
    known = window.encode(start, min(len(window.text), start + length))
    assert known.text == window.text[start : start + length]
    assert known.ids == tokenizer.encode(known.text)
    around = after + known.text + before
    assert encode_around(around, known, tokenizer) == tokenizer.encode(around)
    assert encode_around(around.strip(), known, tokenizer) == tokenizer.encode(around.strip())
    assert encode_around(before, known, tokenizer) == tokenizer.encode(before)


def test_a_long_text_is_encoded_as_if_in_one_go(tokenizer: ModelTokenizer) -> None:
    text = Path(__file__).read_text("utf-8") * 8 + "x" * 20_000 + "日本語" * 5_000 + " and words " * 3000
    window = TokenWindow(text, tokenizer)
    whole = window.encode(0, len(text))
    assert whole.ids == tokenizer.encode(text)
    assert len(whole.inner_ids or ()) > len(whole.ids) * 0.9
    assert window.starts == sorted(window.starts)
    assert len(window.starts) == len(whole.ids)


@pytest.mark.parametrize(
    "text",
    [
        "a good working day", "a1 good work day", " good work day", "a good work", "a good work  day",
        "a good work day, a good work day", "a good work-day", "a  good work day",
    ],
)  # fmt: skip
def test_what_is_known_is_used_only_between_word_borders(tokenizer: ModelTokenizer, text: str) -> None:
    known = TokenWindow("a good work day", tokenizer).encode(0, 15)
    assert known.inner == " good work"
    assert encode_around(text, known, tokenizer) == tokenizer.encode(text)


def test_what_is_known_is_not_encoded_again(model_text: ModelText) -> None:
    class Counting:
        splits_at_words = True
        characters = 0

        def encode(self, text: str) -> list[int]:
            self.characters += len(text)
            return model_text.tokenizer.encode(text)

        def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
            return model_text.tokenizer.encode_with_offsets(text)

    counting = Counting()
    known = TokenWindow("plain words in a row " * 200, counting).encode(100, 4000)
    encode_around(f"Summarize:\n\n{known.text}", known, counting)
    assert counting.characters < 100


def _changed(tokenizer: Tokenizer, change: str) -> Tokenizer:
    other = Tokenizer.from_str(tokenizer.to_str())
    match change:
        case "normalizer":
            other.normalizer = normalizers.Lowercase()
        case "NFC":
            other.normalizer = normalizers.NFC()
        case "pattern":
            split = pre_tokenizers.Split("x y", behavior="isolated")
            other.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
        case "prefix space":
            other.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        case "no words":
            other.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        case "token with a space":
            other.add_tokens(["of the"])
        case "token that eats space":
            other.add_tokens([AddedToken("<gap>", rstrip=True)])
        case "GPT-2":
            other.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return other


@pytest.mark.parametrize(
    ("change", "trusted"),
    [
        ("normalizer", False), ("pattern", False), ("prefix space", False), ("no words", False),
        ("token with a space", False), ("token that eats space", False), ("NFC", True), ("GPT-2", True),
    ],
)  # fmt: skip
def test_only_tokenizers_that_are_known_to_part_at_words_are_trusted(
    model_text: ModelText, change: str, *, trusted: bool
) -> None:
    changed = _changed(model_text.tokenizer._tokenizer, change)
    assert splits_at_words(changed) is trusted
    tokenizer = ModelTokenizer(changed, model_text.tokenizer.vocabulary)
    text = "One of the words of the <gap> row, x y. " * 20
    known = TokenWindow(text, tokenizer).encode(7, 500)
    assert known.ids == tokenizer.encode(known.text)
    assert (known.inner_ids is not None) is trusted
    assert encode_around(f"a {known.text} b", known, tokenizer) == tokenizer.encode(f"a {known.text} b")


def test_an_empty_window_holds_nothing(model_text: ModelText) -> None:
    window = TokenWindow("", model_text.tokenizer)
    assert window.starts == []
    assert window.encode(0, 0) == EncodedText("", [])
