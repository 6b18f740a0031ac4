"""A batch's documents and what came of them, read in pages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from storage.states import AttemptOutcome, DocumentState
from storage.tables import Attempt, Chunk, Document, Job, Result

PAGE = 200  # documents read at a time


@dataclass(frozen=True, slots=True)
class WindowResult:
    """The answer of one window of a document (merge strategy none)."""

    position: int
    char_start: int
    char_end: int
    text: str


@dataclass(frozen=True, slots=True)
class DocumentReport:
    """One document and what came of it. `summary` is None until it is done, and where windows answer alone."""

    id: int
    position: int
    name: str
    source: str
    state: DocumentState
    characters: int
    tokens: int
    chunk_count: int
    levels: int
    remarks: Sequence[str]
    error: str | None
    summary: str | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    seconds: float | None
    windows: Sequence[WindowResult] = field(default_factory=tuple)


def page_of(session: Session, batch_id: str, after: int) -> list[DocumentReport]:
    """The next documents behind position `after`, in input order."""
    rows = session.execute(
        select(Document, Result.text)
        .outerjoin(Result, (Result.document_id == Document.id) & Result.final)
        .where(Document.batch_id == batch_id, Document.position > after)
        .order_by(Document.position)
        .limit(PAGE)
    ).all()
    ids = [document.id for document, _ in rows]
    usage = _usage(session, ids)
    alone = [document.id for document, summary in rows if summary is None and document.state is DocumentState.DONE]
    windows = _windows(session, alone)
    return [_report(document, summary, usage.get(document.id), windows[document.id]) for document, summary in rows]


def _usage(session: Session, document_ids: Sequence[int]) -> dict[int, tuple[int, int, int, float]]:
    """By document: prompt, cached and completion tokens, and seconds in an engine, of successful attempts."""
    rows = session.execute(
        select(
            Job.document_id,
            func.sum(Attempt.prompt_tokens),
            func.sum(Attempt.cached_tokens),
            func.sum(Attempt.completion_tokens),
            func.sum(Attempt.prefill_s + Attempt.decode_s),
        )
        .join(Attempt, Attempt.job_id == Job.id)
        .where(Job.document_id.in_(document_ids), Attempt.outcome == AttemptOutcome.SUCCEEDED)
        .group_by(Job.document_id)
    )
    return {
        document_id: (prompt or 0, cached or 0, completion or 0, s or 0.0)
        for document_id, prompt, cached, completion, s in rows
    }


def _windows(session: Session, document_ids: Sequence[int]) -> dict[int, list[WindowResult]]:
    found: dict[int, list[WindowResult]] = defaultdict(list)
    rows = session.execute(
        select(Result.document_id, Result.position, Chunk.char_start, Chunk.char_end, Result.text)
        .join(Chunk, (Chunk.document_id == Result.document_id) & (Chunk.position == Result.position))
        .where(Result.document_id.in_(document_ids), Result.level == 0)
        .order_by(Result.document_id, Result.position)
    )
    for document_id, position, start, end, text in rows:
        found[document_id].append(WindowResult(position, start, end, text))
    return found


def _report(
    document: Document,
    summary: str | None,
    usage: tuple[int, int, int, float] | None,
    windows: Sequence[WindowResult],
) -> DocumentReport:
    prompt, cached, completion, seconds = usage or (0, 0, 0, None)
    return DocumentReport(
        id=document.id,
        position=document.position,
        name=document.name,
        source=document.source,
        state=document.state,
        characters=document.characters,
        tokens=document.tokens,
        chunk_count=document.chunk_count or 0,
        levels=document.level + 1,
        remarks=document.remarks,
        error=document.error,
        summary=summary,
        prompt_tokens=prompt,
        cached_tokens=cached,
        completion_tokens=completion,
        seconds=seconds,
        windows=windows,
    )
