from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import pytest
import regex
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from docmill.producer.chunking import chunker
from docmill.producer.chunking.chunker import Chunk, split
from docmill.producer.chunking.token_window import EncodedText
from docmill.producer.errors import NoRoomForText
from docmill.producer.model_text import ModelText
from docmill.producer.prompts import RenderedPrompt
from tests.unit.producer.conftest import NASTY

_PARTS = st.tuples(st.sampled_from(NASTY), st.integers(1, 12)).map(lambda part: part[0] * part[1])
_WILD = st.text(st.characters(codec="utf-8"), max_size=30)
DOCUMENTS = st.lists(st.one_of(_PARTS, _PARTS, _WILD), max_size=10).map("".join)


@dataclass(frozen=True)
class Cutter:
    """Cuts with a template around each chunk, and checks every promise by counts of its own."""

    model: ModelText

    def render(self, text: str, known: EncodedText | None = None) -> RenderedPrompt:
        return self.model.renderer.render("Be brief.", f"Summarize this part:\n\n{text}\n\nGo on.", known)

    @property
    def overhead(self) -> int:
        return len(self.render("").ids)

    def cut(self, text: str, chunk: int, *, prompt: int = 8192, overlap: int = 0, piece: int = 50) -> list[Chunk]:
        def render(content: EncodedText) -> RenderedPrompt:
            return self.render(content.text, content)

        pieces = (text[i : i + piece] for i in range(0, len(text), piece))
        chunks = split(
            pieces, self.model.tokenizer, render,
            max_prompt_tokens=prompt, max_chunk_tokens=chunk, overlap_tokens=overlap,
        )  # fmt: skip
        return list(chunks)

    def fits(self, text: str, chunk: int, prompt: int) -> bool:
        return self.model.tokenizer.count(text) <= chunk and len(self.render(text).ids) <= prompt

    def check(self, text: str, chunks: list[Chunk], chunk: int, *, prompt: int = 8192, overlap: int = 0) -> None:
        assert [c.index for c in chunks] == list(range(len(chunks)))
        assert "".join(c.text for c in chunks) == text or overlap
        assert all(c.text == text[c.start : c.end] and c.text for c in chunks)
        for c in chunks:
            assert c.tokens == self.model.tokenizer.count(c.text) <= chunk
            assert c.prompt == self.render(c.text)
            assert len(c.prompt.ids) <= prompt
        assert [chunks[0].start, chunks[-1].end] == [0, len(text)] if text else chunks == []
        for before, after in pairwise(chunks):
            assert before.start < after.start <= before.end < after.end
            assert self.model.tokenizer.count(text[after.start : before.end]) <= overlap
        self._check_graphemes(text, chunks, chunk, prompt)

    def _check_graphemes(self, text: str, chunks: list[Chunk], chunk: int, prompt: int) -> None:
        cuts = {c.end for c in chunks} | {c.start for c in chunks}
        for grapheme in regex.finditer(r"\X", text):
            if any(grapheme.start() < cut < grapheme.end() for cut in cuts):
                assert not self.fits(grapheme.group(), chunk, prompt), (grapheme.group(), chunk)


@pytest.fixture(scope="session")
def cutter(model_text: ModelText) -> Cutter:
    return Cutter(model_text)


@pytest.fixture(scope="module", params=[64, 256 * 1024], ids=["small windows", "one window"])
def window(request: pytest.FixtureRequest) -> Iterator[int]:
    """So that short texts need many windows, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunker, "_WINDOW", request.param)
        patch.setattr(chunker, "_CHARACTERS_PER_TOKEN", 1 if request.param == 64 else 8)
        yield request.param


@given(text=DOCUMENTS, chunk=st.integers(1, 80), room=st.integers(0, 80), piece=st.integers(1, 200))
@settings(max_examples=100)
@pytest.mark.usefixtures("window")
def test_chunks_of_any_text_lose_nothing_and_fit(cutter: Cutter, text: str, chunk: int, room: int, piece: int) -> None:
    prompt = cutter.overhead + room
    try:
        chunks = cutter.cut(text, chunk, prompt=prompt, piece=piece)
    except NoRoomForText:
        assert any(not cutter.fits(character, chunk, prompt) for character in set(text))
        return
    cutter.check(text, chunks, chunk, prompt=prompt)


@given(text=DOCUMENTS, chunk=st.integers(2, 80), overlap=st.integers(1, 79), piece=st.integers(1, 200))
@settings(max_examples=100)
@pytest.mark.usefixtures("window")
def test_overlapping_chunks_cover_any_text_and_share_no_more_than_asked(
    cutter: Cutter, text: str, chunk: int, overlap: int, piece: int
) -> None:
    assume(overlap < chunk)
    try:
        chunks = cutter.cut(text, chunk, overlap=overlap, piece=piece)
    except NoRoomForText:
        assert any(not cutter.fits(character, chunk, 8192) for character in set(text))
        return
    cutter.check(text, chunks, chunk, overlap=overlap)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x" * 30_000,
        "no-spaces-anywhere/" * 1_500,
        "日本語の文章。" * 2_000,
        "👩\u200d👩\u200d👧\u200d👦" * 500,
        " " * 30_000,
        "\n" * 10_000,
        "\x00" * 5_000,
        "\x1d" * 10_000,  # no tokens at all on this model
        "Z" + "\u0301" * 2_000,
        "\ufffd" * 5_000,
        "word " * 10_000,
        "line\r\n" * 5_000,
    ],
    ids=lambda text: f"{text[:3]!r} x {len(text)}",
)
def test_long_monotonous_text_is_cut_as_well(cutter: Cutter, text: str) -> None:
    chunks = cutter.cut(text, 500, piece=8192)
    cutter.check(text, chunks, 500)


@pytest.mark.usefixtures("window")
@pytest.mark.parametrize("overlap", [1, 100, 400, 499])
def test_however_large_the_overlap_every_chunk_goes_on(cutter: Cutter, overlap: int) -> None:
    text = "# Heading\n\n" + "A sentence of some words, and more. " * 40 + "\n\n"
    chunks = cutter.cut(text * 3, 500, overlap=overlap)
    cutter.check(text * 3, chunks, 500, overlap=overlap)
    shared = [before.end - after.start for before, after in pairwise(chunks)]
    assert overlap < 100 or min(shared) > 0
    assert len(chunks) <= 2 + sum(c.tokens for c in cutter.cut(text * 3, 500)) // (500 - overlap) * 3


def test_chunks_are_well_filled(cutter: Cutter) -> None:
    topics = __import__("pydoc_data.topics").topics.topics
    text = "\n\n".join(topics[name] for name in sorted(topics))[:200_000]
    chunks = cutter.cut(text, 1000)
    assert sum(c.tokens for c in chunks) / (1000 * len(chunks)) > 0.85


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("\n## Heading\n", "\n\n"), ("\n\n", "end. "), ("end. ", "\n"), ("\n", " "), (" ", "-"),
    ],
    ids=["heading over paragraph", "paragraph over sentence", "sentence over line", "line over word", "word"],
)  # fmt: skip
def test_the_best_boundary_wins_over_a_later_lesser_one(cutter: Cutter, better: str, worse: str) -> None:
    filler = "abc" if worse == "-" else "xyz-" * 4
    text = filler * 20 + better + (filler + worse) * 4 + filler * 40
    room = cutter.model.tokenizer.count(filler * 20 + better + (filler + worse) * 4)
    first = cutter.cut(text, room)[0]
    expected = text.index(better) + (1 if "#" in better else len(better))
    assert first.end == expected, text[first.start : first.end + 20]


def test_a_boundary_that_leaves_a_chunk_half_empty_does_not_win(cutter: Cutter) -> None:
    text = "Some words in a row. " * 20 + "\n# Heading\n" + "Some words in a row.\n\n" * 100
    first, *_ = cutter.cut(text, 400)
    assert first.tokens > 360


@pytest.mark.parametrize("mark", ["\u0301", "\U000e0100", "\u200d", "\u093f"])
@pytest.mark.parametrize("place", ["word ", "End. ", "文。", "line\n\n"])
def test_a_boundary_is_not_torn_from_the_mark_upon_it(cutter: Cutter, place: str, mark: str) -> None:
    text = (place + mark) * 60
    for overlap in (0, 8):
        cutter.check(text, cutter.cut(text, 30, overlap=overlap), 30, overlap=overlap)


def test_a_first_grapheme_is_whole_where_a_smaller_chunk_was_tried_in_vain(model_text: ModelText) -> None:
    family = "👩\u200d👩\u200d👧\u200d👦"
    tokens = model_text.tokenizer.count(family)

    def render(content: EncodedText) -> RenderedPrompt:
        dear = [0, 0] if "b" in content.text else []
        return RenderedPrompt([*content.ids, *dear], content.text)

    first, *_ = split(
        [family, "b"], model_text.tokenizer, render, max_prompt_tokens=tokens, max_chunk_tokens=tokens + 2
    )
    assert first.text == family


def test_a_heading_begins_its_chunk_and_what_ends_a_sentence_stays_with_it(cutter: Cutter) -> None:
    text = 'He said "so." ' * 30 + "\n## Next\n" + "And more. " * 30
    ends = [c.text for c in cutter.cut(text, 200)]
    assert any(chunk.startswith("## Next\n") for chunk in ends)
    assert all(chunk.endswith((". ", '." ', "\n")) for chunk in ends)


@pytest.mark.parametrize("fence", ["```", "~~~"])
def test_a_code_fence_that_fits_stays_whole(cutter: Cutter, fence: str) -> None:
    code = f"{fence}py\n" + "x = 1\n\n# not a heading\ny = 2\n\n" * 8 + f"{fence}\n\n"
    text = "Some words before it. " * 12 + "\n\n" + code + "Some words after it. " * 30
    chunks = cutter.cut(text, cutter.model.tokenizer.count(code) + 60)
    assert any(code.strip() in c.text for c in chunks)


@pytest.mark.usefixtures("window")
def test_a_fence_that_began_in_an_earlier_window_is_still_one(cutter: Cutter) -> None:
    text = "```\n" + ("some code here and more of it\n" * 10 + "\n") * 40 + "```\n"
    inside = cutter.cut(text, 100)[:-2]
    assert min(chunk.tokens for chunk in inside) > 90  # cut at lines, not at the paragraphs that the code seems to have


def test_a_character_that_does_not_fit_is_refused_with_the_numbers(cutter: Cutter) -> None:
    with pytest.raises(NoRoomForText) as caught:
        cutter.cut("fits 👩", 2)
    assert (caught.value.needed, caught.value.limit) == (cutter.model.tokenizer.count("👩"), 2)
    with pytest.raises(NoRoomForText) as caught:
        cutter.cut("x", 10, prompt=cutter.overhead)
    assert caught.value.limit == cutter.overhead


def test_a_template_that_repeats_its_text_halves_the_chunks(model_text: ModelText) -> None:
    def render(content: EncodedText) -> RenderedPrompt:
        return model_text.renderer.render(None, content.text * 2, content)

    text = "plain words in a row " * 1000
    overhead = len(model_text.renderer.render(None, "").ids)
    chunks = list(split([text], model_text.tokenizer, render, max_prompt_tokens=overhead + 200, max_chunk_tokens=200))
    assert "".join(c.text for c in chunks) == text
    assert all(len(c.prompt.ids) <= overhead + 200 for c in chunks)
    assert min(c.tokens for c in chunks[:-1]) > 60


@pytest.mark.parametrize("overlap", [-1, 10, 11])
def test_an_overlap_as_long_as_a_chunk_is_refused(cutter: Cutter, overlap: int) -> None:
    with pytest.raises(ValueError, match="overlap"):
        cutter.cut("text", 10, overlap=overlap)


def test_memory_is_bounded_by_the_window(cutter: Cutter) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "Some words in a row. " * 50

    def render(content: EncodedText) -> RenderedPrompt:
        return cutter.render(content.text, content)

    chunks = split(endless(), cutter.model.tokenizer, render, max_prompt_tokens=8192, max_chunk_tokens=1000)
    for _ in range(100):
        chunk = next(chunks)
        assert taken * 1050 - chunk.end < 2 * 256 * 1024
