"""A batch's documents with their results, read in pages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from docmill.storage.states import AttemptOutcome, DocumentState
from docmill.storage.tables import Attempt, Chunk, Document, Job, Result

PAGE = 200  # documents read at a time


@dataclass(frozen=True, slots=True)
class WindowResult:
    """The result of one chunk of a document, characters `char_start` to `char_end` (merge strategy `none`)."""

    position: int
    char_start: int
    char_end: int
    text: str


@dataclass(frozen=True, slots=True)
class DocumentReport:
    """A document and its result.

    `summary` is None until the document is done, and with the merge strategy `none`, where `windows` has the results.
    The tokens and `seconds` in the engine are those of successful attempts.
    """

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
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    seconds: float | None = None
    windows: Sequence[WindowResult] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class DocumentFilter:
    """Which documents to read: those that meet every condition given.

    `name` is a document's name, the end of its path, or a pattern with * and ?. With `has_failed`, only documents that
    failed or have failed jobs. `finished_since` is in seconds since 1970.
    """

    name: str | None = None
    has_failed: bool = False
    finished_since: float | None = None

    def matches(self, name: str) -> bool:
        """Return True if `name` meets the condition on names."""
        if self.name is None or name == self.name or name.endswith(f"/{self.name}"):
            return True
        return fnmatchcase(name, self.name) or fnmatchcase(name, f"*/{self.name}")


def read_page(
    session: Session, batch_id: str, after: int, wanted: DocumentFilter
) -> tuple[list[DocumentReport], int | None]:
    """Read the next documents after position `after`, in input order.

    Returns those that `wanted` matches, and the position after which the next page starts, or None after the last page.
    """
    query = (
        select(
            Document.id, Document.position, Document.name, Document.source, Document.state, Document.characters,
            Document.tokens, func.coalesce(Document.chunk_count, 0).label("chunk_count"),
            (Document.level + 1).label("levels"), Document.remarks, Document.error, Result.text.label("summary"),
        )
        .outerjoin(Result, (Result.document_id == Document.id) & Result.final)
        .where(Document.batch_id == batch_id, Document.position > after)
        .order_by(Document.position)
        .limit(PAGE)
    )  # fmt: skip
    if wanted.has_failed:
        query = query.where(or_(Document.state == DocumentState.FAILED, Document.failed_jobs > 0))
    if wanted.finished_since is not None:
        query = query.where(Document.finished_at >= wanted.finished_since)
    page = session.execute(query).all()
    rows = [row for row in page if wanted.matches(row.name)]
    usage = _usage(session, [row.id for row in rows])
    windows = _windows(session, [row.id for row in rows if row.summary is None and row.state is DocumentState.DONE])
    reports = [DocumentReport(**row._asdict(), **usage.get(row.id, {}), windows=windows[row.id]) for row in rows]
    return reports, page[-1].position if len(page) == PAGE else None


def _usage(session: Session, document_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """By document, the tokens and engine seconds of successful attempts, named as in DocumentReport."""
    rows = session.execute(
        select(
            Job.document_id,
            func.coalesce(func.sum(Attempt.prompt_tokens), 0),
            func.coalesce(func.sum(Attempt.cached_tokens), 0),
            func.coalesce(func.sum(Attempt.completion_tokens), 0),
            func.coalesce(func.sum(Attempt.prefill_s + Attempt.decode_s), 0.0),
        )
        .join(Attempt, Attempt.job_id == Job.id)
        .where(Job.document_id.in_(document_ids), Attempt.outcome == AttemptOutcome.SUCCEEDED)
        .group_by(Job.document_id)
    )
    columns = ("prompt_tokens", "cached_tokens", "completion_tokens", "seconds")
    return {document_id: dict(zip(columns, used, strict=True)) for document_id, *used in rows}


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
