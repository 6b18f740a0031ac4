"""A batch after its submission: find it, cancel it, retry what failed; in transactions of bounded size."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, func, select, update
from sqlalchemy.orm import Session

from docmill.storage.columns import db_now
from docmill.storage.database import Database
from docmill.storage.errors import AmbiguousBatch, NoSuchBatch, WrongState
from docmill.storage.moves.counters import end_attempts, lock_jobs, update_documents
from docmill.storage.moves.new_batches import discard_half_written
from docmill.storage.moves.requeue_failed import queue_failed
from docmill.storage.states import AttemptOutcome, BatchState, DocumentState, JobState
from docmill.storage.tables import Attempt, Batch, Document, Job

_SLICE = 2_000  # rows a transaction: a batch of a million is cancelled without one long lock


class Batches:
    """The user's hand on submitted batches."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, id_or_prefix: str) -> Batch:
        """The batch with this id, the one whose id begins so, or the newest for `latest`.

        Raises NoSuchBatch or AmbiguousBatch.
        """
        with self._database.read() as session:
            if id_or_prefix == "latest":
                found = session.scalars(select(Batch).order_by(Batch.created_at.desc()).limit(1)).all()
            else:
                found = session.scalars(
                    select(Batch).where(Batch.id.startswith(id_or_prefix, autoescape=True)).limit(4)
                ).all()
        exact = [batch for batch in found if batch.id == id_or_prefix] or found
        if not exact:
            raise NoSuchBatch(id_or_prefix)
        if len(exact) > 1:
            raise AmbiguousBatch(id_or_prefix, [batch.id for batch in exact])
        return exact[0]

    def cancel(self, batch_id: str) -> int:
        """Stop a batch: queued and running jobs at once, what is finished stays. Returns jobs cancelled.

        Running ones notice at their worker's next heartbeat. A dispatcher ends the batch as `cancelled`.
        """
        with self._database.write() as session:
            moved = session.execute(
                update(Batch)
                .where(
                    Batch.id == batch_id,
                    Batch.state.in_((BatchState.VALIDATING, BatchState.IN_PROGRESS, BatchState.CANCELLING)),
                )
                .values(
                    state=BatchState.CANCELLING,
                    cancelling_at=func.coalesce(Batch.cancelling_at, db_now()),
                )
                .returning(Batch.id)
            ).one_or_none()
        if moved is None:
            raise WrongState(batch_id, self.find(batch_id).state, "only a batch at work can be cancelled")
        return self.end_unfinished(batch_id, JobState.CANCELLED)

    def pause(self, batch_id: str) -> None:
        """Start none of the batch's jobs until it is resumed; running ones are finished.

        Messages of its jobs that lie on the queue are refused when they are claimed. Its deadline stands.
        """
        self._set_paused_at(batch_id, func.coalesce(Batch.paused_at, db_now()))
        while self._unpublish(batch_id) == _SLICE:
            pass

    def resume(self, batch_id: str) -> None:
        """Go on with a paused batch."""
        while self._unpublish(batch_id) == _SLICE:  # what was announced meanwhile was refused
            pass
        self._set_paused_at(batch_id, None)

    def _set_paused_at(self, batch_id: str, paused_at: ColumnElement[float] | None) -> None:
        with self._database.write() as session:
            moved = session.execute(
                update(Batch)
                .where(Batch.id == batch_id, Batch.state.in_((BatchState.VALIDATING, BatchState.IN_PROGRESS)))
                .values(paused_at=paused_at)
                .returning(Batch.id)
            ).one_or_none()
        if moved is None:
            raise WrongState(batch_id, self.find(batch_id).state, "only a batch at work can be paused or resumed")

    def _unpublish(self, batch_id: str) -> int:
        """Forget that messages of one slice of its queued jobs were sent: they do not count for the watermark."""
        published = and_(Job.batch_id == batch_id, Job.state == JobState.QUEUED, Job.published_at.is_not(None))
        with self._database.write() as session:
            ids = lock_jobs(session, published, limit=_SLICE)
            if ids:
                session.execute(update(Job).where(Job.id.in_(ids)).values(published_at=None, publishes=0))
            return len(ids)

    def end_unfinished(self, batch_id: str, state: JobState) -> int:
        """Cancel or expire every document and job of the batch that has not ended. Returns how many jobs.

        Documents first, so that no dispatcher begins another level of theirs.
        """
        with self._database.write() as session:
            discard_half_written(session, batch_id)
        reason = "the batch was cancelled" if state is JobState.CANCELLED else "the batch's deadline passed"
        last: int | None = -1
        while last is not None:
            with self._database.write() as session:
                last = _end_documents(session, batch_id, reason, after=last)
        total = 0
        while self._has_unfinished(batch_id):  # also what was claimed, or put back, between two slices
            total += sum(self._end_jobs(batch_id, source, state) for source in (JobState.RUNNING, JobState.QUEUED))
        return total

    def _has_unfinished(self, batch_id: str) -> bool:
        """Asked in one statement: a job that changes between queued and running meanwhile is seen as one of them."""
        unfinished = and_(Job.batch_id == batch_id, Job.state.in_((JobState.QUEUED, JobState.RUNNING)))
        with self._database.read() as session:
            return session.scalar(select(Job.id).where(unfinished).limit(1)) is not None

    def retry_failed(self, batch_id: str) -> int:
        """Queue the batch's failed jobs again with all their attempts back. Returns how many.

        Raises WrongState unless the batch is at work or completed.
        """
        total = 0
        while True:
            with self._database.write() as session:
                queued = queue_failed(session, batch_id, _SLICE)
            total += queued
            if queued < _SLICE:
                return total

    def _end_jobs(self, batch_id: str, source: JobState, state: JobState) -> int:
        """End one slice of the jobs in state `source`; returns how many."""
        with self._database.write() as session:
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
            update_documents(session, documents, lambda table, jobs: {"open_jobs": table.c.open_jobs - jobs})
            counter = Batch.jobs_cancelled if state is JobState.CANCELLED else Batch.jobs_expired
            session.execute(update(Batch).where(Batch.id == batch_id).values({counter: counter + len(ids)}))
            return len(ids)


def _end_documents(session: Session, batch_id: str, reason: str, *, after: int) -> int | None:
    """End one slice of the documents behind position `after`; returns the last's position, None at the end."""
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
    session.execute(update(Batch).where(Batch.id == batch_id).values(documents_open=Batch.documents_open - len(rows)))
    last: int = rows[-1].position
    return last
