"""Cut a stream of text into chunks that fit the context window, without losing a character.

A window of text is tokenized once to estimate how far the budget reaches; the cut is made at the best cut point before
that. Every chunk is then counted alone and rendered into its prompt, which both proves that it fits and is the job's
prompt. (A part's token count differs from its share of the whole window's, so the estimate alone would not do.)
The window bounds the memory, whatever the document's length.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from docmill.producer.chunking.cut_points import CutPoints, count_fences
from docmill.producer.chunking.token_window import EncodedText, TokenWindow
from docmill.producer.errors import NoRoomForText
from docmill.producer.prompts import RenderedPrompt
from docmill.producer.tokenizer import ModelTokenizer

_WINDOW = 256 * 1024  # characters
_CHARACTERS_PER_TOKEN = 8  # a generous guess: the window must hold at least one chunk
_LEAST_FILL = 0.5  # a better cut point that leaves a chunk emptier than this loses against a later one
_LEAST_FILL_BEFORE_FENCE = 0.1  # the same if it keeps a code fence whole

Render = Callable[[EncodedText], RenderedPrompt]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Characters `start` to `end` of the document. `tokens` is the length of this text alone."""

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
    """The chunks of a text in order, which cover every character.

    Each is at most `max_chunk_tokens` long alone and `max_prompt_tokens` rendered. Neighbours share a text of at most
    `overlap_tokens`; without overlap, the chunks joined are the document. Raises NoRoomForText if a single character
    does not fit.
    """
    if not 0 <= overlap_tokens < max_chunk_tokens:
        raise ValueError(f"overlap_tokens {overlap_tokens} must be smaller than max_chunk_tokens {max_chunk_tokens}")
    fits = _Fits(render, max_prompt_tokens, max_chunk_tokens)
    source = _Source(pieces, max(_WINDOW, max_chunk_tokens * _CHARACTERS_PER_TOKEN))
    index = covered = 0  # a chunk has every character of the document up to `covered`
    while source.fill():
        window = _Window(source, tokenizer)
        position = 0
        while position < len(window.text):
            done = covered - source.offset
            cut = window.next_cut(position, done, max_chunk_tokens, fits)
            if cut is None:
                break  # the budget reaches beyond the window: read more before cutting
            if cut.end <= done:  # the overlap fills the whole chunk: drop it
                position = done
                continue
            start, end = source.offset + position, source.offset + cut.end
            yield Chunk(index, start, end, window.text[position : cut.end], cut.tokens, cut.prompt)
            index, covered = index + 1, end
            if cut.end == len(window.text) and source.is_exhausted:
                return
            position = window.overlap_start(position, cut.end, overlap_tokens)
        source.drop(position)


class _Source:
    """The part of the stream that is in memory. `offset` is its beginning in the document."""

    def __init__(self, pieces: Iterable[str], size: int) -> None:
        self._pieces = iter(pieces)
        self._size = size
        self.text = ""
        self.offset = 0
        self.starts_in_fence = False
        self.is_exhausted = False

    def fill(self) -> bool:
        """Read until the window is full or the stream ends. False if there is no text left."""
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
        """Drop the beginning of the window. If there is nothing to drop, the next window is larger."""
        if characters == 0:
            self._size *= 2
            return
        self.starts_in_fence ^= bool(count_fences(self.text[:characters]) % 2)
        self.offset += characters
        self.text = self.text[characters:]


@dataclass(frozen=True, slots=True)
class _Cut:
    """A chunk that fits: its end in the window, its tokens, its prompt."""

    end: int
    tokens: int
    prompt: RenderedPrompt


class _Fits:
    """Checks that a piece of text fits, by rendering it."""

    def __init__(self, render: Render, max_prompt: int, max_chunk: int) -> None:
        self._render = render
        self._max_prompt = max_prompt
        self._max_chunk = max_chunk

    def __call__(self, piece: EncodedText, end: int) -> _Cut | NoRoomForText:
        """The cut at the piece's `end`, or an error that says how long the piece is and may be."""
        tokens = len(piece.ids)
        if tokens > self._max_chunk:
            return NoRoomForText(tokens, self._max_chunk)
        prompt = self._render(piece)
        if len(prompt.ids) > self._max_prompt:
            return NoRoomForText(len(prompt.ids), self._max_prompt)
        return _Cut(end, tokens, prompt)


class _Window:
    """A window of the text with the approximate beginnings of its tokens."""

    def __init__(self, source: _Source, tokenizer: ModelTokenizer) -> None:
        self.text = source.text
        self._is_last = source.is_exhausted
        self._encoded = TokenWindow(self.text, tokenizer)
        self._starts = self._encoded.starts
        self._cut_points = CutPoints(self.text, starts_in_fence=source.starts_in_fence)

    def next_cut(self, position: int, done: int, budget: int, fits: _Fits) -> _Cut | None:
        """The chunk that begins here, or None if its end may be beyond this window.

        It ends after `done`, the end of the previous chunk, if that fits.
        """
        first = bisect_left(self._starts, position)
        if not self._is_last and first + budget >= len(self._starts):
            return None
        want = budget
        while want >= 1:
            end = self._end_for(position, done, first, want)
            found = fits(self._encoded.encode(position, end), end)
            if isinstance(found, _Cut):
                return self._with_whole_grapheme(position, found, fits)
            less = min(want, bisect_left(self._starts, end) - first)
            want = max(less - (found.needed - found.limit), less // 2)  # at least half: a template may repeat its text
        character = self._encoded.encode(position, position + 1)
        found = fits(character, position + 1)
        if isinstance(found, NoRoomForText):
            raise found
        return self._with_whole_grapheme(position, found, fits)

    def overlap_start(self, position: int, end: int, overlap_tokens: int) -> int:
        """The beginning of the next chunk: a sentence or word within the last `overlap_tokens` before `end`."""
        at = bisect_left(self._starts, end) - overlap_tokens
        while overlap_tokens and at < len(self._starts) and (low := self._starts[max(0, at)]) < end:
            low = self._cut_points.grapheme_border(position, max(position + 1, low))
            start = self._cut_points.first_sentence(low, end) or min(low, end)
            shared = len(self._encoded.encode(start, end).ids)
            if shared <= overlap_tokens:
                return start
            at = max(0, at) + shared - overlap_tokens
        return end

    def _end_for(self, position: int, done: int, first: int, want: int) -> int:
        if first + want >= len(self._starts):
            return len(self.text)
        high = self._starts[first + want]
        lowest = max(position, done, self._starts[first + int(want * _LEAST_FILL_BEFORE_FENCE)] - 1)
        low = max(lowest, self._starts[first + int(want * _LEAST_FILL)] - 1)
        end = self._cut_points.last(low, high, anchor=position, lowest=lowest) if low < high else high
        return end if end > position else max(high, position + 1)

    def _with_whole_grapheme(self, position: int, cut: _Cut, fits: _Fits) -> _Cut:
        """The cut, moved to the end of the first grapheme if it is inside that and the whole grapheme fits."""
        whole = self._cut_points.grapheme_end(position)
        if whole <= cut.end:
            return cut
        moved = fits(self._encoded.encode(position, whole), whole)
        return moved if isinstance(moved, _Cut) else cut
