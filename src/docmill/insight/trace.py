"""Where a summary comes from: the chunks that fed it at every level, and the passages each sentence is nearest to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from docmill.insight.passages import Passages, Sentence, sentences
from docmill.producer.task_files import MergeStrategy
from docmill.storage.reads.provenance import StoredAnswer, StoredChunk, StoredDocument

_SHOWN = 3  # passages for a sentence
_LEAST = 0.1  # a score below is chance: two common words


@dataclass(frozen=True, slots=True)
class Part:
    """A chunk (level None), an answer made of the parts below it, or (job None) answers joined into the summary.

    The span is that of everything below: characters of the document's text.
    """

    level: int | None
    position: int
    job_id: int | None
    char_start: int
    char_end: int
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Passage:
    """A sentence of the document, where it is, the chunk it was read in, and how alike it is: 0 to 1."""

    chunk: int
    char_start: int
    char_end: int
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class TracedSentence:
    """A sentence of the summary and the passages nearest to it, the best first; () where none is like it."""

    text: str
    passages: tuple[Passage, ...]


@dataclass(frozen=True, slots=True)
class TracedText:
    """A summary, or one window's answer: what it was made of, sentence by sentence."""

    text: str
    made_of: Part
    sentences: tuple[TracedSentence, ...]


def trace(document: StoredDocument) -> list[TracedText]:
    """The document's summary; each window's answer where there is no summary (merge strategy none, or not yet)."""
    strategy = MergeStrategy(document.plan["merge_strategy"])
    tree = _Tree(document, is_refined=strategy is MergeStrategy.REFINE)
    final = document.final
    if final is None:
        windows = [answer for answer in document.answers if answer.level == 0]
        return [_traced(answer.text, tree.answer(answer), document.chunks) for answer in windows]
    at_its_level = [answer for answer in document.answers if answer.level == final.level]
    if final.job_id is not None:
        root = next(tree.answer(answer) for answer in at_its_level if answer.job_id == final.job_id)
    else:
        root = _joined(final.level, 0, None, [tree.answer(answer) for answer in at_its_level])
    return [_traced(final.text, root, document.chunks)]


class _Tree:
    """Finds what an answer was made of, down to the chunks."""

    def __init__(self, document: StoredDocument, *, is_refined: bool) -> None:
        self._chunks = {chunk.position: chunk for chunk in document.chunks}
        self._answers: dict[int, dict[int, StoredAnswer]] = defaultdict(dict)
        for answer in document.answers:
            self._answers[answer.level][answer.position] = answer
        self._is_refined = is_refined

    def answer(self, answer: StoredAnswer) -> Part:
        """The answer with everything below it."""
        if self._is_refined:  # each level read the next chunk beside the summary so far: one part for each chunk
            parts = [self._chunk(position) for position in range(answer.level + 1)]
        elif answer.level == 0:
            parts = [self._chunk(answer.position)]
        else:
            below = self._answers[answer.level - 1]
            parts = [self.answer(below[at]) for at in range(answer.first_input, answer.last_input + 1) if at in below]
        return _joined(answer.level, answer.position, answer.job_id, parts)

    def _chunk(self, position: int) -> Part:
        chunk = self._chunks[position]
        return Part(None, position, None, chunk.char_start, chunk.char_end)


def _joined(level: int, position: int, job_id: int | None, parts: Sequence[Part]) -> Part:
    start = min((part.char_start for part in parts), default=0)
    end = max((part.char_end for part in parts), default=0)
    return Part(level, position, job_id, start, end, tuple(parts))


def chunks_of(part: Part) -> list[int]:
    """The positions of the chunks that fed it, in order."""
    if part.level is None:
        return [part.position]
    return sorted({position for below in part.parts for position in chunks_of(below)})


def _traced(text: str, made_of: Part, chunks: Sequence[StoredChunk]) -> TracedText:
    fed = set(chunks_of(made_of))
    source: list[tuple[int, Sentence]] = []
    read_to = 0
    for chunk in chunks:
        if chunk.position not in fed:
            continue
        found = sentences(chunk.text, chunk.char_start)
        source += [(chunk.position, sentence) for sentence in found if sentence.end > read_to]  # chunks may overlap
        read_to = max(read_to, chunk.char_end)
    passages = Passages([sentence.text for _, sentence in source])
    said = (sentence.text for sentence in sentences(text) if any(char.isalpha() for char in sentence.text))
    return TracedText(text, made_of, tuple(_sentence(sentence, source, passages) for sentence in said))


def _sentence(text: str, source: Sequence[tuple[int, Sentence]], passages: Passages) -> TracedSentence:
    found = []
    for match in passages.best(text, limit=_SHOWN, least=_LEAST):
        chunk, sentence = source[match.index]
        found.append(Passage(chunk, sentence.start, sentence.end, sentence.text, match.score))
    return TracedSentence(text, tuple(found))
