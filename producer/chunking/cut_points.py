"""Where a text may be cut, best places first: heading, paragraph, sentence, line, word, grapheme."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property

import regex

_HEADING = re.compile(r"\n(?=#{1,6} )")  # the cut is before the heading: it stays with its text
_PARAGRAPH = re.compile(r"\n[ \t\r]*\n\s*")
_SENTENCE = re.compile(r"[.!?…。！？][\"'”’)\]]*\s+|[。！？]")  # noqa: RUF001
_LINE = re.compile(r"\n")
_WORD = re.compile(r"\s+")
_FENCE = re.compile(r"^(?:```|~~~)", re.MULTILINE)
_GRAPHEME = regex.compile(r"\X")


def count_fences(text: str) -> int:
    """How many lines of the text open or close a code fence."""
    return len(_FENCE.findall(text))


class Boundaries:
    """The places of one window of text, as character positions after which it may be cut."""

    def __init__(self, text: str, *, starts_in_fence: bool) -> None:
        self._text = text
        self._starts_in_fence = starts_in_fence

    def last(self, low: int, high: int, *, anchor: int, lowest: int) -> int:
        """The best place in (low, high]; a grapheme border, or `high` itself, where there is no better.

        Where `high` lies in a code fence, places before that fence do down to `lowest`. `anchor` is a grapheme
        border before all of them.
        """
        for ends, above in self._best_first(low, lowest if self._is_in_fence(high) else low):
            at = bisect_right(ends, high) - 1
            while at >= 0 and ends[at] > above:
                if self._is_border(ends[at]):
                    return ends[at]
                at -= 1
        return self._grapheme_before(anchor, high) or high

    def first_sentence(self, low: int, high: int) -> int | None:
        """The first sentence, else word, that begins in [low, high)."""
        for ends in (self._sentences, self._words):
            for at in range(bisect_left(ends, low), bisect_left(ends, high)):
                if self._is_border(ends[at]):
                    return ends[at]
        return None

    def grapheme_end(self, position: int) -> int:
        """Where the grapheme that begins here ends."""
        match = _GRAPHEME.match(self._text, position)
        return match.end() if match else position

    def grapheme_border(self, anchor: int, position: int) -> int:
        """The first grapheme border at or after `position`; `anchor` is one before it."""
        border = self._grapheme_before(anchor, position) or anchor
        return border if border == position else self.grapheme_end(border)

    def _grapheme_before(self, anchor: int, high: int) -> int | None:
        """The last grapheme border in (anchor, high]."""
        around = self._text[high - 1 : high + 1]
        if high >= len(self._text) or (around.isascii() and around != "\r\n"):
            return high
        best = None
        for match in _GRAPHEME.finditer(self._text, anchor):
            if match.end() > high:
                break
            best = match.end()
        return best

    def _best_first(self, low: int, lowest: int) -> Iterator[tuple[Sequence[int], int]]:
        """Kinds of places, each with where it must lie above; a kind is looked for when the one before did not do."""
        yield self._headings, lowest
        yield self._paragraphs, lowest
        yield self._sentences, low
        yield self._lines, low
        yield self._words, low

    def _is_border(self, end: int) -> bool:
        """Whether what follows white space or a stop is a grapheme of its own, not a mark upon it."""
        return self.grapheme_end(end - 1) <= end

    @cached_property
    def _headings(self) -> Sequence[int]:
        return [end for end in _ends(_HEADING, self._text) if not self._is_in_fence(end)]

    @cached_property
    def _paragraphs(self) -> Sequence[int]:
        return [end for end in _ends(_PARAGRAPH, self._text) if not self._is_in_fence(end)]

    @cached_property
    def _sentences(self) -> Sequence[int]:
        return _ends(_SENTENCE, self._text)

    @cached_property
    def _lines(self) -> Sequence[int]:
        return _ends(_LINE, self._text)

    @cached_property
    def _words(self) -> Sequence[int]:
        return _ends(_WORD, self._text)

    @cached_property
    def _fences(self) -> Sequence[int]:
        """Where the fences open, and where the lines that close them end, in turns."""
        places: list[int] = []
        opens = not self._starts_in_fence
        for match in _FENCE.finditer(self._text):
            newline = self._text.find("\n", match.start())
            places.append(match.start() if opens else newline if newline >= 0 else len(self._text) - 1)
            opens = not opens
        return places

    def _is_in_fence(self, position: int) -> bool:
        passed = bisect_left(self._fences, position)
        return (passed % 2 == 1) != self._starts_in_fence


def _ends(pattern: re.Pattern[str], text: str) -> list[int]:
    return [match.end() for match in pattern.finditer(text)]
