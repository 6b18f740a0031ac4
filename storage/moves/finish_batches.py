"""The end of batches: completed, cancelled or expired.

Every change is a compare-and-set, so any number of dispatchers may make the same one, and any of them may die halfway.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select, update
from sqlalchemy.orm import Session

from docmill.storage.columns import db_now
from docmill.storage.database import Database
from docmill.storage.moves.attempts import end_attempts
from docmill.storage.moves.batch_state import change_batch
from docmill.storage.moves.counters import JOBS, lock_jobs, update_batch, update_documents
from docmill.storage.moves.new_batches import discard_half_written
from docmill.storage.states import AttemptOutcome, BatchState, DocumentState, JobState
from docmill.storage.tables import Attempt, Batch, Document, Job

_SLICE = 2_000  # rows per transaction, so that a batch of a million jobs is never locked for long

_IS_PAST_DEADLINE = and_(Batch.state == BatchState.IN_PROGRESS, Batch.expires_at < db_now())
# `expired_at` is set once all jobs have ended: until then, any dispatcher continues what another one started.
_IS_EXPIRING = and_(Batch.state == BatchState.EXPIRED, Batch.expired_at.is_(None))
_IS_CANCELLING = Batch.state == BatchState.CANCELLING
_HAS_NO_OPEN_DOCUMENT = and_(Batch.state == BatchState.IN_PROGRESS, Batch.documents_open == 0)
_IS_FINALIZING = Batch.state == BatchState.FINALIZING
_ANY_TO_FINISH = (
    select(Batch.id)
    .where(or_(_HAS_NO_OPEN_DOCUMENT, _IS_PAST_DEADLINE, _IS_EXPIRING, _IS_CANCELLING, _IS_FINALIZING))
    .limit(1)
)  # built once: a dispatcher runs it several times per second


def finish_batches(database: Database) -> None:
    """Expire batches past their deadline, finish cancelled ones, and complete those without an open document."""
    with database.read() as session:
        if session.scalar(_ANY_TO_FINISH) is None:
            return
    _change_all(database, _IS_PAST_DEADLINE, BatchState.IN_PROGRESS, state=BatchState.EXPIRED)
    for batch_id in _ids(database, _IS_EXPIRING):
        if end_unfinished_work(database, batch_id, JobState.EXPIRED) == 0:
            _change(database, batch_id, BatchState.EXPIRED, expired_at=db_now())
    for batch_id in _ids(database, _IS_CANCELLING):
        if end_unfinished_work(database, batch_id, JobState.CANCELLED) == 0:
            _change(
                database, batch_id, BatchState.CANCELLING, state=BatchState.CANCELLED, cancelled_at=db_now()
            )  # fmt: skip
    _change_all(
        database, _HAS_NO_OPEN_DOCUMENT, BatchState.IN_PROGRESS, state=BatchState.FINALIZING, finalizing_at=db_now()
    )
    _change_all(
        database, _IS_FINALIZING, BatchState.FINALIZING, state=BatchState.COMPLETED, completed_at=db_now()
    )  # fmt: skip


def end_unfinished_work(database: Database, batch_id: str, state: JobState) -> int:
    """Cancel or expire every unfinished document and job of the batch. Returns the number of jobs.

    Documents end first, so that no dispatcher starts another level of them.
    """
    with database.write() as session:
        discard_half_written(session, batch_id)
    reason = "the batch was cancelled" if state is JobState.CANCELLED else "the batch's deadline passed"
    last: int | None = -1
    while last is not None:
        with database.write() as session:
            last = _end_documents(session, batch_id, reason, after=last)
    total = 0
    while _has_unfinished_jobs(database, batch_id):  # a job may be claimed or queued again between two slices
        for source in (JobState.RUNNING, JobState.QUEUED):
            with database.write() as session:
                total += _end_jobs(session, batch_id, source, state)
    return total


def _ids(database: Database, condition: ColumnElement[bool]) -> list[str]:
    with database.read() as session:
        return list(session.scalars(select(Batch.id).where(condition)))


def _change(
    database: Database, batch_id: str, expected: BatchState, *conditions: ColumnElement[bool], **values: Any
) -> None:
    with database.write() as session:
        change_batch(session, batch_id, (expected,), *conditions, **values)


def _change_all(database: Database, condition: ColumnElement[bool], expected: BatchState, **values: Any) -> None:
    for batch_id in _ids(database, condition):
        _change(database, batch_id, expected, condition, **values)


def _has_unfinished_jobs(database: Database, batch_id: str) -> bool:
    """One statement for both states, so that a job that changes between queued and running is not missed."""
    unfinished = and_(Job.batch_id == batch_id, Job.state.in_((JobState.QUEUED, JobState.RUNNING)))
    with database.read() as session:
        return session.scalar(select(Job.id).where(unfinished).limit(1)) is not None


def _end_documents(session: Session, batch_id: str, reason: str, *, after: int) -> int | None:
    """End one slice of the open documents after position `after`. Returns the last one's position, None at the end."""
    rows = session.execute(
        select(Document.id, Document.position)
        .where(
            Document.batch_id == batch_id,
            Document.position > after,
            Document.state.in_((DocumentState.OPEN, DocumentState.MERGING)),
        )
        .order_by(Document.position)
        .limit(_SLICE)
        .with_for_update(key_share=True)
    ).all()
    if not rows:
        return None
    session.execute(
        update(Document)
        .where(Document.id.in_([row.id for row in rows]))
        .values(state=DocumentState.CANCELLED, error=reason, finished_at=db_now())
    )
    update_batch(session, batch_id, documents_open=Batch.documents_open - len(rows))
    last: int = rows[-1].position
    return last


def _end_jobs(session: Session, batch_id: str, source: JobState, state: JobState) -> int:
    """End one slice of the batch's jobs in state `source`; returns how many."""
    ids = lock_jobs(session, and_(Job.batch_id == batch_id, Job.state == source), limit=_SLICE)
    if not ids:
        return 0
    documents = session.scalars(
        update(Job)
        .where(Job.id.in_(ids))
        .values(state=state, finished_at=db_now(), lease_until=None)
        .returning(Job.document_id)
    ).all()
    end_attempts(session, Attempt.job_id.in_(ids), AttemptOutcome.CANCELLED)
    update_documents(session, documents, open_jobs=Document.open_jobs - JOBS)
    counter = Batch.jobs_cancelled if state is JobState.CANCELLED else Batch.jobs_expired
    update_batch(session, batch_id, **{counter.key: counter + len(ids)})
    return len(ids)
