"""Move a document through its merge levels, and finish it.

Every change is a compare-and-set, so any number of dispatchers may make the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Integer, bindparam, func, insert, select, update
from sqlalchemy.orm import Session

from docmill.storage.columns import db_now
from docmill.storage.database import Database
from docmill.storage.moves.counters import update_batch
from docmill.storage.moves.new_jobs import NewJob, insert_jobs
from docmill.storage.states import BatchState, DocumentState, JobState
from docmill.storage.tables import Batch, Chunk, Document, Job, Result

_UNFINISHED = (DocumentState.OPEN, DocumentState.MERGING)


@dataclass(frozen=True, slots=True)
class EndedLevel:
    """A document whose jobs of the current level have all ended."""

    document_id: int
    batch_id: str
    name: str
    level: int
    chunk_count: int
    failed_jobs: int
    plan: dict[str, Any]
    priority: int


@dataclass(frozen=True, slots=True)
class LevelResult:
    """The result of one job of a level."""

    position: int
    text: str
    finish_reason: str
    completion_tokens: int


class Documents:
    """The changes a dispatcher makes to documents, and what it reads to decide on them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def with_ended_level(self, limit: int = 100) -> list[EndedLevel]:
        """Documents of batches in progress that need their next level or their end, the oldest first."""
        with self._database.read() as session:
            rows = session.execute(_WITH_ENDED_LEVEL, {"limit": limit})
            return [EndedLevel(*row) for row in rows]

    def results(self, document_id: int, level: int) -> list[LevelResult]:
        """The results of one level's jobs, by position."""
        with self._database.read() as session:
            rows = session.execute(
                select(Result.position, Result.text, Result.finish_reason, Result.completion_tokens)
                .where(Result.document_id == document_id, Result.level == level, Result.job_id.is_not(None))
                .order_by(Result.position)
            )
            return [LevelResult(*row) for row in rows]

    def chunk_text(self, document_id: int, position: int) -> str:
        """The text of one chunk."""
        with self._database.read() as session:
            return session.execute(
                select(Chunk.text).where(Chunk.document_id == document_id, Chunk.position == position)
            ).scalar_one()

    def first_failure(self, document_id: int) -> str:
        """The reason stored with the first of the document's failed jobs."""
        with self._database.read() as session:
            row = session.execute(
                select(Job.level, Job.position, Job.error_kind, Job.error)
                .where(Job.document_id == document_id, Job.state == JobState.FAILED)
                .order_by(Job.level, Job.position)
                .limit(1)
            ).one_or_none()
        if row is None:
            return "no reason was stored"
        return f"level {row.level}, job {row.position}: {row.error_kind}: {row.error}"

    def begin_level(self, ended: EndedLevel, jobs: Sequence[NewJob], *, remark: str | None = None) -> bool:
        """Queue the next level's jobs. False: another dispatcher did, or the batch is no longer in progress.

        Raises ValueError for a document with failed jobs, like `finish`.
        """
        _require_no_failures(ended)
        with self._database.write() as session:
            if not _leave_level(
                session, ended, state=DocumentState.MERGING, level=ended.level + 1, open_jobs=len(jobs)
            ):
                return False
            insert_jobs(session, ended.batch_id, ended.document_id, jobs)
            if remark:
                _add_remark(session, ended.document_id, remark)
            return True

    def finish(self, ended: EndedLevel, *, text: str | None, has_one_result: bool) -> bool:
        """Set the document to `done`. False as for `begin_level`.

        Args:
            ended: The document and its last level.
            text: The summary joined from several results; None if the level's only job wrote it.
            has_one_result: False with the merge strategy `none`, where each chunk's result stands for itself.

        Raises ValueError for a document with failed jobs: such a document can only fail, because `retry` could
        otherwise reopen a document that already has its final result.
        """
        _require_no_failures(ended)
        with self._database.write() as session:
            if not _leave_level(session, ended, state=DocumentState.DONE, finished_at=db_now()):
                return False
            if has_one_result:
                _store_final_result(session, ended, text)
            update_batch(session, ended.batch_id, documents_open=Batch.documents_open - 1)
            return True

    def fail(self, ended: EndedLevel, reason: str) -> bool:
        """Set the document to `failed`; the results it has are kept. False as for `begin_level`."""
        with self._database.write() as session:
            if not _leave_level(session, ended, state=DocumentState.FAILED, error=reason, finished_at=db_now()):
                return False
            update_batch(
                session,
                ended.batch_id,
                documents_open=Batch.documents_open - 1,
                documents_failed=Batch.documents_failed + 1,
            )
            return True


_WITH_ENDED_LEVEL = (
    select(
        Document.id, Document.batch_id, Document.name, Document.level, Document.chunk_count, Document.failed_jobs,
        Batch.plan, Batch.priority,
    )
    .join(Batch, Batch.id == Document.batch_id)
    .where(
        Batch.state == BatchState.IN_PROGRESS,
        Document.open_jobs == 0,
        Document.state.in_(_UNFINISHED),
        Document.finished_at.is_(None),
        Document.chunk_count.is_not(None),
    )
    .order_by(Document.id)
    .limit(bindparam("limit", type_=Integer))
)  # fmt: skip  # built once: a dispatcher runs it several times per second


def _require_no_failures(ended: EndedLevel) -> None:
    if ended.failed_jobs:
        raise ValueError(f"document {ended.document_id} has {ended.failed_jobs} failed jobs: it can only fail")


def _leave_level(session: Session, ended: EndedLevel, **values: Any) -> bool:
    """Update the document if it is still as `ended` describes it and its batch is in progress."""
    in_progress = select(Batch.id).where(Batch.id == ended.batch_id, Batch.state == BatchState.IN_PROGRESS)
    statement = (
        update(Document)
        .where(
            Document.id == ended.document_id,
            Document.level == ended.level,
            Document.open_jobs == 0,
            Document.failed_jobs == ended.failed_jobs,
            Document.state.in_(_UNFINISHED),
            in_progress.exists(),
        )
        .values(**values)
        .returning(Document.id)
    )
    return session.execute(statement).one_or_none() is not None


def _store_final_result(session: Session, ended: EndedLevel, text: str | None) -> None:
    """Mark the level's only result as final, or store the joined `text` as the final result."""
    of_level = (Result.document_id == ended.document_id, Result.level == ended.level)
    if text is None:
        session.execute(update(Result).where(*of_level, Result.position == 0).values(final=True))
        return
    tokens = session.execute(
        select(func.coalesce(func.sum(Result.completion_tokens), 0)).where(*of_level)
    ).scalar_one()  # fmt: skip
    session.execute(
        insert(Result).values(
            document_id=ended.document_id,
            job_id=None,
            level=ended.level,
            position=0,
            text=text,
            finish_reason="joined",
            prompt_tokens=0,
            completion_tokens=tokens,
            final=True,
            created_at=db_now(),
        )
    )


def _add_remark(session: Session, document_id: int, remark: str) -> None:
    remarks = session.scalar(select(Document.remarks).where(Document.id == document_id)) or []
    session.execute(update(Document).where(Document.id == document_id).values(remarks=[*remarks, remark]))
