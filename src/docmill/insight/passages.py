"""Which sentences of a source a sentence is based on, by the words they share.

The score is the cosine similarity of TF-IDF vectors: a word weighs its count times ln(1 + N / n), where n of the N
sentences of the source contain it, so that frequent words count little. 1 means the same words equally often, 0 no
word in common. Only words are compared, not meaning: a good paraphrase scores low. A word that the source does not
contain weighs most, and lowers the score of a sentence with invented content.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import regex

# A full stop after a number at the beginning of a line belongs to a list and ends no sentence.
_SENTENCE_END = regex.compile(
    r"(?<!^\s*\(?\d{1,3})[.!?…][\"'”’)\]]*\s+|[。！？][\"'”’)\]」』]*\s*"  # noqa: RUF001
    r"|\n[ \t\r]*\n\s*|\n(?=\s*(?:[-*•]|\(?\d{1,3}[.)])\s)",
    regex.MULTILINE,
)
# Scripts without spaces between words are compared by pairs of characters, all others by words.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー"
_WORD = regex.compile(
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
    """A sentence of the source, by its index, and its score, 0 to 1."""

    index: int
    score: float


def sentences(text: str, offset: int = 0) -> list[Sentence]:
    """The sentences of a text, stripped. `offset` is the position of the text in a longer one."""
    found: list[Sentence] = []
    begin = 0
    for end in [*(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]:
        part = text[begin:end]
        stripped = part.strip()
        if stripped:
            start = offset + begin + part.index(stripped[0])
            found.append(Sentence(start, start + len(stripped), stripped))
        begin = end
    return found


def words(text: str) -> list[str]:
    """The words of a text as they are compared: without case, in compatibility form (NFKC)."""
    found: list[str] = []
    for match in _WORD.finditer(unicodedata.normalize("NFKC", text).casefold()):
        run = match[1]
        if run is None:
            found.append(match[0])
        else:
            found += [run[at : at + 2] for at in range(max(1, len(run) - 1))]
    return found


class Passages:
    """An index of the sentences of a source."""

    def __init__(self, texts: Sequence[str]) -> None:
        counted = [Counter(words(text)) for text in texts]
        self._count = len(texts)
        self._sentences_with: Counter[str] = Counter(word for counts in counted for word in counts)
        self._postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for index, counts in enumerate(counted):
            for word, weight in self._unit_vector(counts).items():
                self._postings[word].append((index, weight))

    def best(self, text: str, *, limit: int, min_score: float) -> list[Match]:
        """At most `limit` sentences with at least `min_score`, the best first; among equals, the earlier one first."""
        scores: dict[int, float] = defaultdict(float)
        for word, weight in self._unit_vector(Counter(words(text))).items():
            for index, other_weight in self._postings.get(word, ()):
                scores[index] += weight * other_weight
        ordered = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
        return [Match(index, min(1.0, score)) for index, score in ordered[:limit] if score >= min_score]

    def _unit_vector(self, counts: Counter[str]) -> dict[str, float]:
        weights = {
            word: count * math.log1p(self._count / (self._sentences_with[word] or 0.5))
            for word, count in counts.items()
        }
        length = math.hypot(*weights.values())
        return {word: weight / length for word, weight in weights.items()} if length else {}
