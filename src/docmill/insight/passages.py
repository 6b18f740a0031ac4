"""Which sentences of a source a sentence comes from, by the words they share.

The measure is the cosine of their TF-IDF vectors: each word weighs its count times ln(1 + N / n), where n of the
source's N sentences hold it, so that what is said everywhere counts little. 1: the same words equally often; 0: none
in common. It sees words, not meaning: a good paraphrase scores low. A word that the source does not hold at all
weighs most, and lowers the score of the sentence that invented it.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import regex

# A stop behind a number that begins a line is that of a list, and ends no sentence.
_END = regex.compile(
    r"(?<!^\s*\(?\d{1,3})[.!?…][\"'”’)\]]*\s+|[。！？][\"'”’)\]」』]*\s*"  # noqa: RUF001
    r"|\n[ \t\r]*\n\s*|\n(?=\s*(?:[-*•]|\(?\d{1,3}[.)])\s)",
    regex.MULTILINE,
)
# Scripts that write no spaces are taken by pairs of characters; all others by words.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー"
_TOKEN = regex.compile(
    rf"([{_UNSPACED}][{_UNSPACED}\p{{M}}]*)"
    rf"|[\p{{L}}\p{{N}}](?:(?![{_UNSPACED}])[\p{{L}}\p{{N}}\p{{M}}]|['’](?=\p{{L}}))*"  # noqa: RUF001
)


@dataclass(frozen=True, slots=True)
class Sentence:
    """Characters `start` to `end` of a text."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Match:
    """A sentence of the source, by its number, and how alike it is: 0 to 1."""

    index: int
    score: float


def sentences(text: str, offset: int = 0) -> list[Sentence]:
    """The sentences of a text, without the white space around them; `offset` is where it begins in a larger one."""
    found: list[Sentence] = []
    begin = 0
    for end in [*(match.end() for match in _END.finditer(text)), len(text)]:
        part = text[begin:end]
        stripped = part.strip()
        if stripped:
            start = begin + part.index(stripped[0])
            found.append(Sentence(offset + start, offset + start + len(stripped), stripped))
        begin = end
    return found


def words(text: str) -> list[str]:
    """The words of a text as they are compared: without case, compatibility forms made one."""
    found: list[str] = []
    for match in _TOKEN.finditer(unicodedata.normalize("NFKC", text).casefold()):
        run = match[1]
        if run is None:
            found.append(match[0])
        else:
            found += [run[at : at + 2] for at in range(max(1, len(run) - 1))]
    return found


class Passages:
    """The sentences of a source, ready to be searched."""

    def __init__(self, texts: Sequence[str]) -> None:
        counted = [Counter(words(text)) for text in texts]
        self._count = len(texts)
        self._holding: Counter[str] = Counter(word for counts in counted for word in counts)
        self._postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for index, counts in enumerate(counted):
            for word, weight in self._unit(counts).items():
                self._postings[word].append((index, weight))

    def best(self, text: str, *, limit: int, least: float) -> list[Match]:
        """At most `limit` sentences that score `least` or more, the best first; the earlier of equals."""
        scores: dict[int, float] = defaultdict(float)
        for word, weight in self._unit(Counter(words(text))).items():
            for index, theirs in self._postings.get(word, ()):
                scores[index] += weight * theirs
        ordered = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
        return [Match(index, min(1.0, score)) for index, score in ordered[:limit] if score >= least]

    def _unit(self, counts: Counter[str]) -> dict[str, float]:
        weights = {word: n * math.log1p(self._count / (self._holding[word] or 0.5)) for word, n in counts.items()}
        length = math.sqrt(sum(weight * weight for weight in weights.values()))
        return {word: weight / length for word, weight in weights.items()} if length else {}
