"""Where a text may be cut, best places first: heading, paragraph, sentence, line, word, grapheme."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import regex

_HEADING = re.compile(r"\n(?=#{1,6} )")  # the cut is before the heading: it stays with its text
_PARAGRAPH = re.compile(r"\n[ \t\r]*\n\s*")
_SENTENCE = re.compile(r"[.!?…。！？][\"'”’)\]]*\s+|[。！？]")  # noqa: RUF001
_LINE = re.compile(r"\n")
_WORD = re.compile(r"\s+")
_FENCE = re.compile(r"^(?:```|~~~)", re.MULTILINE)
_GRAPHEME = regex.compile(r"\X")
_GRAPHEME_REACH = 256  # characters looked back for a grapheme border; longer clusters are not language


def count_fences(text: str) -> int:
    """How many lines of the text open or close a code fence."""
    return len(_FENCE.findall(text))


class Boundaries:
    """The places of one window of text, as character positions after which it may be cut."""

    def __init__(self, text: str, *, starts_in_fence: bool) -> None:
        self._text = text
        fences = [match.start() for match in _FENCE.finditer(text)]
        outside = _Outside(fences, starts_in_fence=starts_in_fence)
        self._classes = (
            [end for end in _ends(_HEADING, text) if outside(end)],
            [end for end in _ends(_PARAGRAPH, text) if outside(end)],
            _ends(_SENTENCE, text),
            _ends(_LINE, text),
            _ends(_WORD, text),
        )

    def last(self, low: int, high: int) -> int:
        """The best place in (low, high]; a grapheme border, or `high` itself, where there is no better."""
        for ends in self._classes:
            at = bisect_right(ends, high) - 1
            if at >= 0 and ends[at] > low:
                return ends[at]
        return self._grapheme(high) or high

    def first_sentence(self, low: int, high: int) -> int | None:
        """The first sentence, else word, that begins in [low, high)."""
        for ends in (self._classes[2], self._classes[4]):
            at = bisect_left(ends, low)
            if at < len(ends) and ends[at] < high:
                return ends[at]
        return None

    def splits_grapheme(self, position: int) -> bool:
        """Whether a cut here would tear a grapheme apart."""
        return self._grapheme(position) != position

    def _grapheme(self, high: int) -> int | None:
        """The last grapheme border at or before `high`."""
        start = max(0, high - _GRAPHEME_REACH)
        best = None
        for match in _GRAPHEME.finditer(self._text, start, min(len(self._text), high + _GRAPHEME_REACH)):
            if match.end() > high:
                break
            best = match.end()
        return best


class _Outside:
    """Whether a position lies outside every code fence."""

    def __init__(self, fences: Sequence[int], *, starts_in_fence: bool) -> None:
        self._fences = fences
        self._starts_in_fence = starts_in_fence

    def __call__(self, position: int) -> bool:
        passed = bisect_left(self._fences, position)
        return (passed % 2 == 1) == self._starts_in_fence


def _ends(pattern: re.Pattern[str], text: str) -> list[int]:
    return [match.end() for match in pattern.finditer(text)]
