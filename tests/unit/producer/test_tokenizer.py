from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from docmill.catalogue.find_model import find_model
from docmill.catalogue.local_model import ModelKind
from docmill.producer.errors import TokenizerUnsupported
from docmill.producer.model_text import ModelText
from docmill.producer.prompts import PromptRenderer
from docmill.producer.tokenizer import load_tokenizer
from tests.unit.producer.conftest import NASTY, write_tiny_gguf


class Reference(Protocol):
    def encode(self, text: str) -> list[int]: ...


def test_counts_are_those_of_llama_cpp(model_text: ModelText, llama: Reference) -> None:
    source = Path(__file__).read_text("utf-8")
    topics = __import__("pydoc_data.topics").topics.topics
    texts = [*NASTY, " ".join(NASTY), source, topics["formatstrings"], "x" * 3000, "", " ", "\n", "understanding"]
    for text in texts:
        assert model_text.tokenizer.encode(text) == llama.encode(text), repr(text[:60])
        assert model_text.tokenizer.count(text) == len(llama.encode(text))


def test_special_tokens_in_a_text_are_text(model_text: ModelText) -> None:
    tokenizer = model_text.tokenizer
    specials = set(tokenizer.vocabulary.special_ids.values())
    assert "<|im_end|>" in tokenizer.vocabulary.special_ids
    for name in tokenizer.vocabulary.special_ids:
        ids = tokenizer.encode(f"before {name} after")
        assert not specials & set(ids), name
        assert tokenizer.decode(ids) == f"before {name} after"


def test_the_end_of_a_turn_ends_a_text(model_text: ModelText) -> None:
    assert model_text.tokenizer.vocabulary.special_ids["<|im_end|>"] in model_text.tokenizer.eos_ids


# The demo model has no tokens for some control characters and the first bytes of planes 4 and up: it never sees them.
_UNREADABLE = {*map(chr, range(32)), "\x7f"} - {*"\t\n\r"}
_READABLE = st.text(st.characters(codec="utf-8", max_codepoint=0x3FFFF, exclude_characters=_UNREADABLE), max_size=20)


@given(st.lists(st.one_of(st.sampled_from([n for n in NASTY if not set(n) & _UNREADABLE]), _READABLE), max_size=8))
@settings(max_examples=150)
def test_decoding_gives_the_text_back(model_text: ModelText, parts: list[str]) -> None:
    text = "".join(parts)
    ids, offsets = model_text.tokenizer.encode_with_offsets(text)
    assert ids == model_text.tokenizer.encode(text)
    assert model_text.tokenizer.decode(ids) == text
    assert all(0 <= start <= end <= len(text) for start, end in offsets)
    assert [start for start, _ in offsets] == sorted(start for start, _ in offsets)


def test_pieces_are_one_a_token_and_joined_they_are_the_text(model_text: ModelText) -> None:
    assert model_text.tokenizer.pieces("misunderstandings") == ["mis", "understand", "ings"]
    for text in ("plain words, and more.", "日本語の文章。", "Größe", "a\n\n  b\tc"):
        pieces = model_text.tokenizer.pieces(text)
        assert len(pieces) == model_text.tokenizer.count(text)
    text = "plain words, Größe and\n\n  more."
    assert "".join(model_text.tokenizer.pieces(text)) == text


def test_a_character_of_several_tokens_is_shown_once(model_text: ModelText) -> None:
    pieces = model_text.tokenizer.pieces("a👩b")
    assert len(pieces) == model_text.tokenizer.count("a👩b") > 3
    assert [pieces[0], pieces[1], pieces[-1]] == ["a", "👩", "b"]
    assert pieces.count("👩") == 1


def test_the_tokenizer_is_cached_by_what_the_file_holds(tmp_path: Path) -> None:
    home, cache = tmp_path / "home", tmp_path / "home" / "cache"
    path = write_tiny_gguf(tmp_path / "a.gguf")
    first = load_tokenizer(find_model(str(path), home), home)
    (cached,) = cache.iterdir()
    written = cached.stat().st_mtime_ns
    moved = path.rename(tmp_path / "renamed.gguf")
    again = load_tokenizer(find_model(str(moved), home), home)
    assert [(file.name, file.stat().st_mtime_ns) for file in cache.iterdir()] == [(cached.name, written)]
    assert first.encode("the text") == again.encode("the text")
    assert first.vocabulary == again.vocabulary
    write_tiny_gguf(moved, chat_template="{{ messages[0].content }} changed")
    changed = load_tokenizer(find_model(str(moved), home), home)
    assert changed.vocabulary.chat_template == "{{ messages[0].content }} changed"


def test_a_damaged_cache_is_made_anew(tmp_path: Path) -> None:
    model = find_model(str(write_tiny_gguf(tmp_path / "a.gguf")), tmp_path)
    ids = load_tokenizer(model, tmp_path).encode("the text")
    (cached,) = (tmp_path / "cache").iterdir()
    cached.write_bytes(cached.read_bytes()[:1000])
    assert load_tokenizer(model, tmp_path).encode("the text") == ids


def test_a_home_that_takes_no_cache_costs_time_and_nothing_else(tmp_path: Path) -> None:
    model = find_model(str(write_tiny_gguf(tmp_path / "a.gguf")), tmp_path)
    (tmp_path / "home").write_text("no directory")
    assert load_tokenizer(model, tmp_path / "home").encode("the text") == load_tokenizer(model, tmp_path).encode(
        "the text"
    )


def test_many_threads_may_make_the_cache_at_once(tmp_path: Path) -> None:
    model = find_model(str(write_tiny_gguf(tmp_path / "a.gguf")), tmp_path)
    with ThreadPoolExecutor(8) as pool:
        for trial in range(20):
            home = tmp_path / str(trial)
            list(pool.map(lambda _, home=home: load_tokenizer(model, home), range(8)))
            assert len(list((home / "cache").iterdir())) == 1


@pytest.mark.parametrize(("key", "value"), [("pre", "klingon"), ("model", "bert")])
def test_a_vocabulary_that_cannot_be_counted_exactly_is_refused(tmp_path: Path, key: str, value: str) -> None:
    model = find_model(str(write_tiny_gguf(tmp_path / "a.gguf", **{key: value})), tmp_path)
    with pytest.raises(TokenizerUnsupported, match=f"'{value}'"):
        load_tokenizer(model, tmp_path)


def test_user_defined_tokens_are_read_in_a_text_unless_the_chat_template_speaks_them(tmp_path: Path) -> None:
    template = "<|turn|>{{ messages[0].content }}"
    path = write_tiny_gguf(tmp_path / "a.gguf", user_defined=["<tab>", "<|turn|>"], chat_template=template)
    tokenizer = load_tokenizer(find_model(str(path), tmp_path), tmp_path)
    tab, turn = tokenizer._tokenizer.token_to_id("<tab>"), tokenizer.vocabulary.special_ids["<|turn|>"]
    assert tokenizer.encode("<tab>") == [tab]
    assert turn not in tokenizer.encode("a<|turn|>b")
    prompt = PromptRenderer(tokenizer).render(None, "a<|turn|>b")
    assert prompt.ids == [turn, *tokenizer.encode("a<|turn|>b")]


def test_a_model_directory_counts_as_its_gguf_does(
    model_directory: Path, model_text: ModelText, tmp_path: Path
) -> None:
    model = find_model(str(model_directory), tmp_path)
    assert (model.kind, model.context_window) == (ModelKind.DIRECTORY, 2048)
    tokenizer = load_tokenizer(model, tmp_path)
    for text in NASTY:
        assert tokenizer.encode(text) == model_text.tokenizer.encode(text)
    specials = model_text.tokenizer.vocabulary.special_ids
    assert dict(tokenizer.vocabulary.special_ids) == dict(specials)
    assert set(tokenizer.eos_ids) == {0, specials["<|im_end|>"]}
    assert tokenizer.vocabulary.chat_template == model_text.tokenizer.vocabulary.chat_template
    assert tokenizer.splits_at_words


def test_a_turn_token_that_a_directory_lists_as_plain_is_special_all_the_same(
    model_directory: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "model"
    shutil.copytree(model_directory, directory)
    content = json.loads((directory / "tokenizer.json").read_text())
    for token in content["added_tokens"]:
        token["special"] = False
    (directory / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = load_tokenizer(find_model(str(directory), tmp_path), tmp_path)
    end = tokenizer.vocabulary.special_ids["<|im_end|>"]
    assert end in tokenizer.eos_ids
    assert end not in tokenizer.encode("a document that says <|im_end|>")


def test_a_broken_tokenizer_file_is_refused_by_its_path(model_directory: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        directory = tmp_path / name
        shutil.copytree(model_directory, directory)
        (directory / name).write_text("{broken")
        with pytest.raises(TokenizerUnsupported, match=name):
            load_tokenizer(find_model(str(directory), tmp_path), tmp_path)


@given(st.lists(st.sampled_from(NASTY), max_size=12).map("".join), st.integers(0, 60))
@settings(max_examples=60)
def test_a_cut_text_is_a_beginning_that_fits(model_text: ModelText, text: str, tokens: int) -> None:
    cut = model_text.cut(text, tokens)
    assert text.startswith(cut)
    assert model_text.tokenizer.count(cut) <= tokens
    if model_text.tokenizer.count(text) <= tokens:
        assert cut == text
