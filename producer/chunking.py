"""Cut a stream of text into chunks that fit, losing nothing.

A window of text is tokenized once, with offsets, to see how far a budget reaches; the cut goes to the best boundary
before that. Every chunk is then counted alone and rendered into its prompt, which is both the proof that it fits
and the job's prompt. (A part's count differs from its share of the whole's, so the offsets alone would not do.)
Memory is bounded by the window, whatever the document's length.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from producer.boundaries import Boundaries, count_fences
from producer.errors import NoRoomForText
from producer.prompts import RenderedPrompt
from producer.tokens import ModelTokenizer

_WINDOW = 256 * 1024  # characters
_CHARACTERS_A_TOKEN = 8  # a generous guess: the window must hold at least one chunk
_LEAST_FILL = 0.5  # a boundary that leaves a chunk emptier than this is not better than a lesser one further on

Render = Callable[[str], RenderedPrompt]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Characters `start` to `end` of the document; `tokens` is the length of its text by itself."""

    index: int
    start: int
    end: int
    text: str
    tokens: int
    prompt: RenderedPrompt


def split(
    pieces: Iterable[str],
    tokenizer: ModelTokenizer,
    render: Render,
    *,
    max_prompt_tokens: int,
    max_chunk_tokens: int,
    overlap_tokens: int = 0,
) -> Iterator[Chunk]:
    """The chunks of a text, in order, covering every character of it.

    Each is at most `max_chunk_tokens` long by itself and `max_prompt_tokens` rendered. Neighbours share at most
    `overlap_tokens`; without overlap the chunks' texts joined are the document. Raises NoRoomForText when even
    one character does not fit.
    """
    if not 0 <= overlap_tokens < max_chunk_tokens:
        raise ValueError(f"overlap_tokens {overlap_tokens} must be smaller than max_chunk_tokens {max_chunk_tokens}")
    fits = _Fits(tokenizer, render, max_prompt_tokens, max_chunk_tokens)
    source = _Source(pieces, max(_WINDOW, max_chunk_tokens * _CHARACTERS_A_TOKEN))
    index = 0
    while source.fill():
        window = _Window(source, tokenizer)
        position = 0
        while position < len(window.text):
            cut = window.next_cut(position, max_chunk_tokens, fits)
            if cut is None:
                break  # the budget reaches beyond the window: read on, and cut with more in view
            end, tokens, prompt = cut
            yield Chunk(index, source.offset + position, source.offset + end, window.text[position:end], tokens, prompt)
            index += 1
            if end == len(window.text) and source.is_exhausted:
                return
            position = window.overlap_start(position, end, overlap_tokens)
        source.drop(position)


class _Source:
    """The part of the stream that is in memory; `offset` is where it begins in the document."""

    def __init__(self, pieces: Iterable[str], size: int) -> None:
        self._pieces = iter(pieces)
        self._size = size
        self.text = ""
        self.offset = 0
        self.starts_in_fence = False
        self.is_exhausted = False

    def fill(self) -> bool:
        """Read until the window is full or the stream ends; False when nothing is left."""
        parts, length = [self.text], len(self.text)
        while length < self._size:
            piece = next(self._pieces, None)
            if piece is None:
                self.is_exhausted = True
                break
            parts.append(piece)
            length += len(piece)
        self.text = "".join(parts)
        return bool(self.text)

    def drop(self, characters: int) -> None:
        """Forget the beginning of the window. Nothing to forget: the next window is larger."""
        if characters == 0:
            self._size *= 2
            return
        gone = self.text[:characters]
        self.starts_in_fence ^= bool(count_fences(gone) % 2)
        self.offset += characters
        self.text = self.text[characters:]


class _Fits:
    """Counts and renders a piece of text; tells by how many tokens it is too long."""

    def __init__(self, tokenizer: ModelTokenizer, render: Render, max_prompt: int, max_chunk: int) -> None:
        self._tokenizer = tokenizer
        self._render = render
        self._max_prompt = max_prompt
        self._max_chunk = max_chunk

    def __call__(self, text: str) -> tuple[int, int, RenderedPrompt | None]:
        """(tokens too many, tokens alone, the prompt unless the text alone is too long)."""
        tokens = self._tokenizer.count(text)
        if tokens > self._max_chunk:
            return tokens - self._max_chunk, tokens, None
        prompt = self._render(text)
        return max(0, len(prompt.ids) - self._max_prompt), tokens, prompt

    def no_room(self, text: str) -> NoRoomForText:
        """The error for a single character that does not fit."""
        tokens = self._tokenizer.count(text)
        if tokens > self._max_chunk:
            return NoRoomForText(tokens, self._max_chunk)
        return NoRoomForText(len(self._render(text).ids), self._max_prompt)


class _Window:
    """A tokenized window of the text."""

    def __init__(self, source: _Source, tokenizer: ModelTokenizer) -> None:
        self.text = source.text
        self._is_last = source.is_exhausted
        self._starts = [start for start, _ in tokenizer.encode_with_offsets(self.text)[1]]
        self._boundaries = Boundaries(self.text, starts_in_fence=source.starts_in_fence)

    def next_cut(self, position: int, budget: int, fits: _Fits) -> tuple[int, int, RenderedPrompt] | None:
        """(end, tokens, prompt) of the chunk that begins here; None when that cannot be seen in this window."""
        first = bisect_left(self._starts, position)
        if not self._is_last and first + budget >= len(self._starts):
            return None
        want = budget
        while want >= 1:
            end = self._cut_for(position, first, want)
            excess, tokens, prompt = fits(self.text[position:end])
            if excess == 0 and prompt is not None:
                return end, tokens, prompt
            want = min(want, bisect_left(self._starts, end) - first) - max(1, excess)
        end = position + 1
        excess, tokens, prompt = fits(self.text[position:end])
        if excess or prompt is None:
            raise fits.no_room(self.text[position:end])
        return end, tokens, prompt

    def overlap_start(self, position: int, end: int, overlap_tokens: int) -> int:
        """Where the next chunk begins: a sentence or word within the last `overlap_tokens` before `end`."""
        if overlap_tokens == 0:
            return end
        at = bisect_left(self._starts, end) - overlap_tokens
        earliest = max(position + 1, self._starts[at] if at >= 0 else 0)
        while earliest < end and self._boundaries.splits_grapheme(earliest):
            earliest += 1
        return self._boundaries.first_sentence(earliest, end) or min(earliest, end)

    def _cut_for(self, position: int, first: int, want: int) -> int:
        if first + want >= len(self._starts):
            return len(self.text)
        high = self._starts[first + want]
        low = max(position, self._starts[first + int(want * _LEAST_FILL)] - 1)
        cut = self._boundaries.last(low, high)
        return cut if cut > position else max(high, position + 1)
