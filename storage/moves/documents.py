"""A document's way through its levels, and a batch's to its end: the dispatcher's hand on both.

Every move is a compare-and-set, so any number of dispatchers may make the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Integer, and_, bindparam, func, insert, or_, select, update
from sqlalchemy.orm import Session

from docmill.storage.columns import db_now
from docmill.storage.database import Database
from docmill.storage.moves.batches import Batches
from docmill.storage.moves.new_jobs import NewJob, insert_jobs
from docmill.storage.states import BatchState, DocumentState, JobState
from docmill.storage.tables import Batch, Chunk, Document, Job, Result

_WORKING = (DocumentState.OPEN, DocumentState.MERGING)


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
    """The text of one job of a level, in order of its position."""

    position: int
    text: str
    finish_reason: str
    completion_tokens: int


class Levels:
    """The dispatcher's hand on documents and batches."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._batches = Batches(database)

    def ended(self, limit: int = 100) -> list[EndedLevel]:
        """Documents of batches in progress that wait for their next level, or their end, the oldest first."""
        with self._database.read() as session:
            rows = session.execute(_ENDED, {"limit": limit})
            return [EndedLevel(*row) for row in rows]

    def results(self, document_id: int, level: int) -> list[LevelResult]:
        """What the jobs of one level wrote, in order."""
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
        """Why one of the document's failed jobs failed."""
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
        """Queue the next level's jobs. False: another dispatcher did, or the batch has stopped.

        Raises ValueError for a document with failed jobs, as `finish` does.
        """
        _must_be_whole(ended)
        with self._database.write() as session:
            if not self._leave_level(
                session, ended, state=DocumentState.MERGING, level=ended.level + 1, open_jobs=len(jobs)
            ):
                return False
            insert_jobs(session, ended.batch_id, ended.document_id, jobs)
            if remark:
                _remark(session, ended.document_id, remark)
            return True

    def finish(self, ended: EndedLevel, *, text: str | None, has_one_result: bool) -> bool:
        """The document is done. `text` is its joined summary; None: the level's one job wrote it.

        Without `has_one_result` (merge strategy none) its windows stay results of their own. Raises ValueError for
        a document with failed jobs, which can only fail: `retry` would take back to work what has its final result.
        """
        _must_be_whole(ended)
        with self._database.write() as session:
            if not self._leave_level(session, ended, state=DocumentState.DONE, finished_at=db_now()):
                return False
            if has_one_result:
                _mark_final(session, ended, text)
            _count_ended(session, ended.batch_id, failed=0)
            return True

    def fail(self, ended: EndedLevel, reason: str) -> bool:
        """The document cannot be finished; its results so far stay."""
        with self._database.write() as session:
            if not self._leave_level(session, ended, state=DocumentState.FAILED, error=reason, finished_at=db_now()):
                return False
            _count_ended(session, ended.batch_id, failed=1)
            return True

    def settle_batches(self) -> None:
        """Expire what is past its deadline, end what is cancelling, complete what has no open document."""
        with self._database.read() as session:
            if session.scalar(_ANY_UNSETTLED) is None:
                return
        for batch_id in self._ids(
            Batch.state == BatchState.IN_PROGRESS, Batch.expires_at.is_not(None), Batch.expires_at < db_now()
        ):
            self._change(batch_id, BatchState.IN_PROGRESS, state=BatchState.EXPIRED)
        # Stamped when all of its jobs have ended: whoever finds it unstamped goes on where another died.
        for batch_id in self._ids(Batch.state == BatchState.EXPIRED, Batch.expired_at.is_(None)):
            if self._batches.end_unfinished(batch_id, JobState.EXPIRED) == 0:
                self._change(batch_id, BatchState.EXPIRED, expired_at=db_now())
        for batch_id in self._ids(Batch.state == BatchState.CANCELLING):
            if self._batches.end_unfinished(batch_id, JobState.CANCELLED) == 0:
                self._move(batch_id, BatchState.CANCELLING, BatchState.CANCELLED)
        for batch_id in self._ids(Batch.state == BatchState.IN_PROGRESS, Batch.documents_open == 0):
            self._move(batch_id, BatchState.IN_PROGRESS, BatchState.FINALIZING, Batch.documents_open == 0)
        for batch_id in self._ids(Batch.state == BatchState.FINALIZING):
            self._move(batch_id, BatchState.FINALIZING, BatchState.COMPLETED)

    def _ids(self, *conditions: ColumnElement[bool]) -> Sequence[str]:
        with self._database.read() as session:
            return session.scalars(select(Batch.id).where(*conditions)).all()

    def _move(self, batch_id: str, source: BatchState, target: BatchState, *conditions: ColumnElement[bool]) -> None:
        self._change(batch_id, source, *conditions, **{"state": target, f"{target}_at": db_now()})

    def _change(self, batch_id: str, source: BatchState, *conditions: ColumnElement[bool], **values: Any) -> None:
        with self._database.write() as session:
            session.execute(
                update(Batch).where(Batch.id == batch_id, Batch.state == source, *conditions).values(**values)
            )

    @staticmethod
    def _leave_level(session: Session, ended: EndedLevel, **values: Any) -> bool:
        in_progress = select(Batch.id).where(Batch.id == ended.batch_id, Batch.state == BatchState.IN_PROGRESS)
        moved = session.execute(
            update(Document)
            .where(
                Document.id == ended.document_id,
                Document.level == ended.level,
                Document.open_jobs == 0,
                Document.failed_jobs == ended.failed_jobs,
                Document.state.in_(_WORKING),
                in_progress.exists(),
            )
            .values(**values)
            .returning(Document.id)
        ).one_or_none()
        return moved is not None


# Built once: a dispatcher asks both several times a second.
_ENDED = (
    select(
        Document.id, Document.batch_id, Document.name, Document.level, Document.chunk_count, Document.failed_jobs,
        Batch.plan, Batch.priority,
    )
    .join(Batch, Batch.id == Document.batch_id)
    .where(
        Batch.state == BatchState.IN_PROGRESS,
        Document.open_jobs == 0,
        Document.state.in_(_WORKING),
        Document.finished_at.is_(None),
        Document.chunk_count.is_not(None),
    )
    .order_by(Document.id)
    .limit(bindparam("limit", type_=Integer))
)  # fmt: skip
_ANY_UNSETTLED = (
    select(Batch.id)
    .where(
        or_(
            and_(Batch.state == BatchState.IN_PROGRESS, Batch.documents_open == 0),
            and_(Batch.state == BatchState.IN_PROGRESS, Batch.expires_at < db_now()),
            and_(Batch.state == BatchState.EXPIRED, Batch.expired_at.is_(None)),
            Batch.state == BatchState.CANCELLING,
            Batch.state == BatchState.FINALIZING,
        )
    )
    .limit(1)
)


def _must_be_whole(ended: EndedLevel) -> None:
    if ended.failed_jobs:
        raise ValueError(f"document {ended.document_id} has {ended.failed_jobs} failed jobs: it can only fail")


def _mark_final(session: Session, ended: EndedLevel, text: str | None) -> None:
    if text is None:
        session.execute(
            update(Result)
            .where(Result.document_id == ended.document_id, Result.level == ended.level, Result.position == 0)
            .values(final=True)
        )
        return
    usage = session.execute(
        select(func.coalesce(func.sum(Result.completion_tokens), 0)).where(
            Result.document_id == ended.document_id, Result.level == ended.level
        )
    ).scalar_one()
    session.execute(
        insert(Result).values(
            document_id=ended.document_id,
            job_id=None,
            level=ended.level,
            position=0,
            text=text,
            finish_reason="joined",
            prompt_tokens=0,
            completion_tokens=usage,
            final=True,
            created_at=db_now(),
        )
    )


def _remark(session: Session, document_id: int, remark: str) -> None:
    remarks = session.scalar(select(Document.remarks).where(Document.id == document_id)) or []
    session.execute(update(Document).where(Document.id == document_id).values(remarks=[*remarks, remark]))


def _count_ended(session: Session, batch_id: str, *, failed: int) -> None:
    session.execute(
        update(Batch)
        .where(Batch.id == batch_id)
        .values(
            documents_open=Batch.documents_open - 1, documents_failed=Batch.documents_failed + failed
        )
    )  # fmt: skip
