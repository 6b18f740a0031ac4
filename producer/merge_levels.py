"""Decide what follows an ended level of a document: the next merge level, packed into jobs, or the summary.

The model merges only where it must: answers that together are no longer than the requested summary are joined and
are the summary. (A small model loses more in a second pass than it gains; docs/decisions/0003-merging.md has the
measurement.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from docmill.producer.batch_plan import Plan
from docmill.producer.task_files import MergeStrategy
from docmill.storage.moves.documents import LevelResult

SEPARATOR = "\n\n"
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*(?=\s|$)|[。！？][\"'”’)\]」』]*")  # noqa: RUF001


@dataclass(frozen=True, slots=True)
class Done:
    """The document is finished with this summary; None with merge strategy none, where every window has its own."""

    text: str | None


@dataclass(frozen=True, slots=True)
class Group:
    """One job of the next level: the answers `first` to `last` of this level, joined."""

    first: int
    last: int
    text: str


@dataclass(frozen=True, slots=True)
class NextLevel:
    """The jobs of the next level, in order. `remark` says which answers were cut."""

    groups: list[Group]
    max_tokens: int
    remark: str | None = None


@dataclass(frozen=True, slots=True)
class NextChunk:
    """Merge strategy refine: the next chunk is read with the summary so far."""

    position: int
    summary: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The document cannot be merged."""

    reason: str


Decision = Done | NextLevel | NextChunk | GiveUp


def decide(
    level: int,
    chunk_count: int,
    results: Sequence[LevelResult],
    plan: Plan,
    *,
    room_tokens: int,
    count: Callable[[str], int],
    cut: Callable[[str, int], str],
) -> Decision:
    """Decide what follows a level whose jobs have all succeeded.

    `room_tokens` is the room for text in a merge prompt, `count` counts the tokens of a text, and `cut` shortens a
    text to a number of tokens.
    """
    texts = [whole_sentences(result) for result in results]
    if plan.merge_strategy is MergeStrategy.REFINE:
        if level + 1 < chunk_count:
            return NextChunk(position=level + 1, summary=texts[0])
        return Done(texts[0])
    if plan.merge_strategy is MergeStrategy.NONE:
        return Done(None)
    written = sum(result.completion_tokens for result in results)
    if len(results) == 1 or plan.merge_strategy is MergeStrategy.CONCAT or written <= plan.summary_tokens:
        return Done(SEPARATOR.join(text for text in texts if text))
    return _next_level(texts, plan, room_tokens=min(room_tokens, plan.chunk_tokens), count=count, cut=cut)


def _next_level(
    texts: Sequence[str],
    plan: Plan,
    *,
    room_tokens: int,
    count: Callable[[str], int],
    cut: Callable[[str, int], str],
) -> NextLevel | GiveUp:
    share = max(1, room_tokens // 2 - 2)  # two always fit one job: every level halves the jobs
    shortened = [cut(text, share) if count(text) > share else text for text in texts]
    cuts = sum(short != text for short, text in zip(shortened, texts, strict=True))
    groups = _pack(shortened, room_tokens, count)
    if len(groups) >= len(texts):
        return GiveUp(
            f"merging does not shrink: {len(texts)} answers need {len(groups)} jobs of {room_tokens} tokens; "
            "use a larger --chunk-tokens or a smaller --summary-tokens"
        )
    remark = f"{cuts} answers were cut to {share} tokens before merging" if cuts else None
    return NextLevel(groups, plan.output_tokens(len(groups)), remark)


def _pack(texts: Sequence[str], room_tokens: int, count: Callable[[str], int]) -> list[Group]:
    groups: list[Group] = []
    first = 0
    for position in range(1, len(texts) + 1):
        if position < len(texts) and count(SEPARATOR.join(texts[first : position + 1])) <= room_tokens:
            continue
        groups.append(Group(first, position - 1, SEPARATOR.join(texts[first:position])))
        first = position
    return groups


def whole_sentences(result: LevelResult) -> str:
    """The stripped text, without its last sentence if the token limit cut that sentence off."""
    text = result.text.strip()
    if result.finish_reason != "length":
        return text
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    return text[: ends[-1]] if ends and ends[-1] >= len(text) // 3 else text
