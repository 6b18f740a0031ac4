"""Where a summary comes from: the chunks it is based on at every level, and the passages nearest to each sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from docmill.insight.passages import Passages, Sentence, sentences
from docmill.producer.task_files import MergeStrategy
from docmill.storage.reads.provenance import StoredAnswer, StoredChunk, StoredDocument

_PASSAGES = 3  # shown per sentence
_MIN_SCORE = 0.1  # a lower score is chance: two common words


@dataclass(frozen=True, slots=True)
class Part:
    """A chunk (level None), an answer generated from `parts`, or answers joined into the summary (job_id None).

    The span covers all chunks below it, in characters of the document's text.
    """

    level: int | None
    position: int
    job_id: int | None
    char_start: int
    char_end: int
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Passage:
    """A sentence of the document: the chunk that contains it, where it is, and its score, 0 to 1."""

    chunk: int
    char_start: int
    char_end: int
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class TracedSentence:
    """A sentence of the summary, and the passages nearest to it, the best first; may be empty."""

    text: str
    passages: tuple[Passage, ...]


@dataclass(frozen=True, slots=True)
class TracedText:
    """A summary, or the answer for one chunk, with its sources."""

    text: str
    made_of: Part
    sentences: tuple[TracedSentence, ...]


def trace(document: StoredDocument) -> list[TracedText]:
    """The document's summary; or, without one (not merged, or not yet), the answers for its chunks."""
    is_refined = document.plan["merge_strategy"] == MergeStrategy.REFINE
    answers = {(answer.level, answer.position): answer for answer in document.answers}
    chunks = [
        Part(None, chunk.position, None, chunk.char_start, chunk.char_end)
        for chunk in sorted(document.chunks, key=lambda chunk: chunk.position)
    ]

    def sources(answer: StoredAnswer) -> Part:
        """The answer with everything below it."""
        parts: Sequence[Part]
        if is_refined:  # each level reads the next chunk and the summary so far
            parts = chunks[: answer.level + 1]
        elif answer.level == 0:
            parts = [chunks[answer.position]]
        else:
            inputs = [(answer.level - 1, at) for at in range(answer.first_input, answer.last_input + 1)]
            parts = [sources(answers[key]) for key in inputs if key in answers]
        return _combined(answer.level, answer.position, answer.job_id, parts)

    final = document.final
    if final is None:
        return [_traced(answer.text, sources(answer), document.chunks) for answer in _at_level(document, 0)]
    made = [sources(answer) for answer in _at_level(document, final.level)]
    if final.job_id is None:
        summary = _combined(final.level, 0, None, made)
    else:
        summary = next(part for part in made if part.job_id == final.job_id)
    return [_traced(final.text, summary, document.chunks)]


def chunks_of(part: Part) -> list[int]:
    """The positions of the chunks that it is based on, in order."""
    if part.level is None:
        return [part.position]
    return sorted({position for below in part.parts for position in chunks_of(below)})


def _at_level(document: StoredDocument, level: int) -> list[StoredAnswer]:
    return [answer for answer in document.answers if answer.level == level]


def _combined(level: int, position: int, job_id: int | None, parts: Sequence[Part]) -> Part:
    start = min((part.char_start for part in parts), default=0)
    end = max((part.char_end for part in parts), default=0)
    return Part(level, position, job_id, start, end, tuple(parts))


def _traced(text: str, made_of: Part, chunks: Sequence[StoredChunk]) -> TracedText:
    used = set(chunks_of(made_of))
    source: list[tuple[int, Sentence]] = []
    read_to = 0
    for chunk in chunks:
        if chunk.position in used:
            found = sentences(chunk.text, chunk.char_start)
            source += [(chunk.position, sentence) for sentence in found if sentence.end > read_to]  # chunks may overlap
            read_to = max(read_to, chunk.char_end)
    index = Passages([sentence.text for _, sentence in source])
    traced = []
    for sentence in sentences(text):
        if any(char.isalpha() for char in sentence.text):
            matches = index.best(sentence.text, limit=_PASSAGES, min_score=_MIN_SCORE)
            passages = (_passage(*source[match.index], match.score) for match in matches)
            traced.append(TracedSentence(sentence.text, tuple(passages)))
    return TracedText(text, made_of, tuple(traced))


def _passage(chunk: int, sentence: Sentence, score: float) -> Passage:
    return Passage(chunk, sentence.start, sentence.end, sentence.text, score)
