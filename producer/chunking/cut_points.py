"""Where a text may be cut, in order of preference: heading, paragraph, sentence, line, word, grapheme."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cached_property

import regex

_HEADING = re.compile(r"\n(?=#{1,6} )")  # the cut is before the heading, which stays with its text
_PARAGRAPH = re.compile(r"\n[ \t\r]*\n\s*")
_SENTENCE = re.compile(r"[.!?…。！？][\"'”’)\]]*\s+|[。！？]")  # noqa: RUF001
_LINE = re.compile(r"\n")
_WORD = re.compile(r"\s+")
_BEST_FIRST = (_HEADING, _PARAGRAPH, _SENTENCE, _LINE, _WORD)
_OUTSIDE_FENCES = (_HEADING, _PARAGRAPH)  # in a code fence, a `#` or a blank line is code

_FENCE = re.compile(r"^(?:```|~~~)", re.MULTILINE)
_GRAPHEME = regex.compile(r"\X")


def count_fences(text: str) -> int:
    """The number of lines that open or close a code fence."""
    return len(_FENCE.findall(text))


class CutPoints:
    """The cut points of one window of text, as character positions after which it may be cut."""

    def __init__(self, text: str, *, starts_in_fence: bool) -> None:
        self._text = text
        self._starts_in_fence = starts_in_fence
        self._found: dict[re.Pattern[str], Sequence[int]] = {}

    def last(self, low: int, high: int, *, anchor: int, lowest: int) -> int:
        """The best cut point in (low, high]: without a better one the end of a grapheme, or `high` itself.

        If `high` is inside a code fence, cut points before that fence are accepted down to `lowest`. `anchor` is a
        grapheme border before all of them.
        """
        is_in_fence = self._is_in_fence(high)
        for pattern in _BEST_FIRST:
            ends, above = self._ends(pattern), lowest if is_in_fence and pattern in _OUTSIDE_FENCES else low
            at = bisect_right(ends, high) - 1
            while at >= 0 and ends[at] > above:
                if self._is_grapheme_border(ends[at]):
                    return ends[at]
                at -= 1
        return self._grapheme_before(anchor, high) or high

    def first_sentence(self, low: int, high: int) -> int | None:
        """The beginning of the first sentence in [low, high), or else of the first word."""
        for pattern in (_SENTENCE, _WORD):
            ends = self._ends(pattern)
            for at in range(bisect_left(ends, low), bisect_left(ends, high)):
                if self._is_grapheme_border(ends[at]):
                    return ends[at]
        return None

    def grapheme_end(self, position: int) -> int:
        """The end of the grapheme that begins here."""
        match = _GRAPHEME.match(self._text, position)
        return match.end() if match else position

    def grapheme_border(self, anchor: int, position: int) -> int:
        """The first grapheme border at or after `position`; `anchor` is a border before it."""
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

    def _is_grapheme_border(self, end: int) -> bool:
        """False if what follows is a combining mark on the white space or full stop before it."""
        return self.grapheme_end(end - 1) <= end

    def _ends(self, pattern: re.Pattern[str]) -> Sequence[int]:
        """All cut points of one kind, searched for once and only if the better kinds had none."""
        if pattern not in self._found:
            ends = [match.end() for match in pattern.finditer(self._text)]
            if pattern in _OUTSIDE_FENCES:
                ends = [end for end in ends if not self._is_in_fence(end)]
            self._found[pattern] = ends
        return self._found[pattern]

    @cached_property
    def _fences(self) -> Sequence[int]:
        """The beginnings of fences and the ends of their closing lines, alternating."""
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
