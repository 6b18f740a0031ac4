"""A batch's documents and what came of them, read in pages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from docmill.storage.states import AttemptOutcome, DocumentState
from docmill.storage.tables import Attempt, Chunk, Document, Job, Result

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


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which documents are asked for; what is not given is not asked.

    `name` is a document's, the end of its path, or a pattern with * and ?. `finished_since` in seconds since 1970.
    """

    name: str | None = None
    has_failed: bool = False
    finished_since: float | None = None

    def takes(self, name: str) -> bool:
        """Whether a document of this name is meant."""
        if self.name is None or name == self.name or name.endswith(f"/{self.name}"):
            return True
        return fnmatchcase(name, self.name) or fnmatchcase(name, f"*/{self.name}")


def page_of(session: Session, batch_id: str, after: int, wanted: Wanted) -> tuple[list[DocumentReport], int | None]:
    """Those wanted of the next documents behind position `after`, in input order, and where the next page begins.

    None: there is no next page. A document has failed when it did or when jobs of it did.
    """
    asked = (
        select(Document, Result.text)
        .outerjoin(Result, (Result.document_id == Document.id) & Result.final)
        .where(Document.batch_id == batch_id, Document.position > after)
        .order_by(Document.position)
        .limit(PAGE)
    )
    if wanted.has_failed:
        asked = asked.where(or_(Document.state == DocumentState.FAILED, Document.failed_jobs > 0))
    if wanted.finished_since is not None:
        asked = asked.where(Document.finished_at >= wanted.finished_since)
    page = session.execute(asked).all()
    rows = [row for row in page if wanted.takes(row[0].name)]
    ids = [document.id for document, _ in rows]
    usage = _usage(session, ids)
    alone = [document.id for document, summary in rows if summary is None and document.state is DocumentState.DONE]
    windows = _windows(session, alone)
    reports = [_report(document, summary, usage.get(document.id), windows[document.id]) for document, summary in rows]
    return reports, page[-1][0].position if len(page) == PAGE else None


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
