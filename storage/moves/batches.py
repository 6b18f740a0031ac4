"""What a user does with a submitted batch: find, cancel, pause, resume, retry; in transactions of bounded size."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, func, select, update

from docmill.storage.columns import db_now
from docmill.storage.database import Database
from docmill.storage.errors import AmbiguousBatch, NoSuchBatch
from docmill.storage.moves.batch_state import change_batch, wrong_state
from docmill.storage.moves.counters import lock_jobs
from docmill.storage.moves.finish_batches import end_unfinished_work
from docmill.storage.moves.requeue_failed import requeue_failed
from docmill.storage.states import BatchState, JobState
from docmill.storage.tables import Batch, Job

_SLICE = 2_000  # rows per transaction, so that a batch of a million jobs is never locked for long


class Batches:
    """The changes a user makes to submitted batches."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, id_or_prefix: str) -> Batch:
        """Return the batch with this id, the only one whose id starts with it, or the newest one for `latest`.

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
        """Cancel the batch's queued and running jobs; finished work is kept. Returns the number of cancelled jobs.

        Workers stop running jobs at their next heartbeat. A dispatcher then sets the batch to `cancelled`. Raises
        WrongState if the batch has ended.
        """
        cancellable = (BatchState.VALIDATING, BatchState.IN_PROGRESS, BatchState.CANCELLING)
        cancelling_at = func.coalesce(Batch.cancelling_at, db_now())
        with self._database.write() as session:
            if not change_batch(
                session, batch_id, cancellable, state=BatchState.CANCELLING, cancelling_at=cancelling_at
            ):
                raise wrong_state(session, batch_id, "only an active batch can be cancelled")
            before = session.scalars(select(Batch.jobs_cancelled).where(Batch.id == batch_id)).one()
        end_unfinished_work(self._database, batch_id, JobState.CANCELLED)
        with self._database.read() as session:  # a dispatcher may have cancelled some of them
            return session.scalars(select(Batch.jobs_cancelled).where(Batch.id == batch_id)).one() - before

    def pause(self, batch_id: str) -> None:
        """Start none of the batch's jobs until it is resumed. Running jobs finish; the deadline does not move.

        Messages of its jobs that are already on the queue are ignored by the claim. Raises WrongState if it has ended.
        """
        self._set_paused_at(batch_id, func.coalesce(Batch.paused_at, db_now()))
        self._unpublish(batch_id)

    def resume(self, batch_id: str) -> None:
        """Continue a paused batch. Raises WrongState if it has ended."""
        self._unpublish(batch_id)  # workers have ignored the messages sent before and during the pause
        self._set_paused_at(batch_id, None)

    def retry_failed(self, batch_id: str) -> int:
        """Queue the batch's failed jobs again, with all their attempts available. Returns how many.

        Raises WrongState unless the batch is at work or completed.
        """
        total, queued = 0, _SLICE
        while queued == _SLICE:
            with self._database.write() as session:
                queued = requeue_failed(session, batch_id, _SLICE)
            total += queued
        return total

    def _set_paused_at(self, batch_id: str, paused_at: ColumnElement[float] | None) -> None:
        pausable = (BatchState.VALIDATING, BatchState.IN_PROGRESS)
        with self._database.write() as session:
            if not change_batch(session, batch_id, pausable, paused_at=paused_at):
                raise wrong_state(session, batch_id, "only an active batch can be paused or resumed")

    def _unpublish(self, batch_id: str) -> None:
        """Mark the batch's queued jobs as not announced, so that they do not count towards the watermark."""
        published = and_(Job.batch_id == batch_id, Job.state == JobState.QUEUED, Job.published_at.is_not(None))
        changed = _SLICE
        while changed == _SLICE:
            with self._database.write() as session:
                ids = lock_jobs(session, published, limit=_SLICE)
                if ids:
                    session.execute(update(Job).where(Job.id.in_(ids)).values(published_at=None, publishes=0))
            changed = len(ids)
