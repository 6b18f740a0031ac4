"""What the dispatcher asks of the jobs table: which to publish, which to rescue, which messages were lost.

The broker holds a bounded window of each model's queue; the table is the whole of it. A crash between
publishing and `mark_published` doubles a message at worst, and the claim absorbs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Select, func, select, tuple_, update
from sqlalchemy.orm import Session

from storage.columns import db_now
from storage.database import Database
from storage.jobs import count_failed, end_attempts
from storage.states import AttemptOutcome, BatchState, JobState
from storage.tables import Attempt, Batch, Document, Job, Worker

_WORKER_SEEN_S = 60.0


@dataclass(frozen=True, slots=True)
class Publishable:
    """A job to be announced on its model's queue, with what makes its message readable in Flower."""

    id: int
    epoch: int
    model: str
    priority: int
    batch_id: str
    document: str
    level: int
    position: int


class Outbox:
    """The dispatcher's hand on the jobs table. Any number of dispatchers may work at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def models_at_work(self) -> list[str]:
        """Models that batches in progress ask for."""
        with self._database.read() as session:
            return list(session.scalars(select(Batch.model).where(Batch.state == BatchState.IN_PROGRESS).distinct()))

    def published(self, model: str) -> int:
        """Messages that should lie on the model's queue."""
        with self._database.read() as session:
            return session.scalar(
                select(func.count()).where(
                    Job.model == model, Job.state == JobState.QUEUED, Job.published_at.is_not(None)
                )
            ) or 0  # fmt: skip

    def slots(self, model: str) -> int:
        """Jobs that the workers seen lately can run at once."""
        with self._database.read() as session:
            return session.scalar(
                select(func.coalesce(func.sum(Worker.slots), 0)).where(
                    Worker.model == model,
                    Worker.stopped_at.is_(None),
                    Worker.seen_at > db_now() - _WORKER_SEEN_S,
                )
            ) or 0  # fmt: skip

    def unpublished(self, model: str, limit: int) -> list[Publishable]:
        """At most `limit` jobs that are due and not announced, in order of priority, batch and age."""
        found: list[Publishable] = []
        with self._database.read() as session:
            batches = session.scalars(
                select(Batch.id)
                .where(Batch.state == BatchState.IN_PROGRESS, Batch.model == model)
                .order_by(Batch.priority, Batch.created_at)
            ).all()
            for batch_id in batches:
                if len(found) >= limit:
                    break
                due = (
                    _publishable()
                    .where(
                        Job.batch_id == batch_id,
                        Job.state == JobState.QUEUED,
                        Job.published_at.is_(None),
                        Job.not_before <= db_now(),
                    )
                    .order_by(Job.priority, Job.id)
                    .limit(limit - len(found))
                )
                found += [Publishable(**row._asdict()) for row in session.execute(due)]
        return found

    def overdue(self, model: str, *, age_s: float, limit: int) -> list[Publishable]:
        """Jobs announced long ago and still queued: their message may be lost.

        The wait grows with the square of the announcements: a long queue is not flooded with copies of itself.
        """
        waited = db_now() - Job.published_at
        with self._database.read() as session:
            rows = session.execute(
                _publishable()
                .where(Job.model == model, Job.state == JobState.QUEUED, Job.published_at.is_not(None))
                .where(waited > age_s * Job.publishes * Job.publishes)
                .order_by(Job.published_at)
                .limit(limit)
            )
            return [Publishable(**row._asdict()) for row in rows]

    def mark_published(self, jobs: Sequence[Publishable]) -> None:
        """Note that messages of these jobs are on the queue (a job claimed since then keeps its row)."""
        pairs = [(job.id, job.epoch) for job in jobs]
        with self._database.write() as session:
            session.execute(
                update(Job)
                .where(tuple_(Job.id, Job.epoch).in_(pairs), Job.state == JobState.QUEUED)
                .values(published_at=db_now(), publishes=Job.publishes + 1)
            )

    def rescue(self, *, max_losses: int, limit: int = 500) -> int:
        """Queue again what dead workers held; fail a job that was lost `max_losses` times. Returns how many."""
        with self._database.write() as session:
            expired = session.execute(
                select(Job.id, Job.epoch, Job.losses, Job.batch_id, Job.document_id)
                .where(Job.state == JobState.RUNNING, Job.lease_until < db_now())
                .order_by(Job.lease_until)
                .limit(limit)
                .with_for_update(skip_locked=True)
            ).all()
            for row in expired:
                self._rescue_one(session, *row.tuple(), max_losses=max_losses)
            return len(expired)

    def _rescue_one(
        self,
        session: Session,
        job_id: int,
        epoch: int,
        losses: int,
        batch_id: str,
        document_id: int,
        *,
        max_losses: int,
    ) -> None:
        gives_up = losses + 1 >= max_losses
        reason = f"its worker was lost {losses + 1} times while it ran"
        moved = session.execute(
            update(Job)
            .where(
                Job.id == job_id,
                Job.epoch == epoch,
                Job.state == JobState.RUNNING,
                Job.lease_until < db_now(),
            )
            .values(
                state=JobState.FAILED if gives_up else JobState.QUEUED,
                owner=None,
                lease_until=None,
                published_at=None,
                publishes=0,
                losses=Job.losses + 1,
                error_kind="WorkerLost" if gives_up else None,
                error=reason if gives_up else None,
                finished_at=db_now() if gives_up else None,
            )
            .returning(Job.id)
        ).one_or_none()
        if moved is None:
            return
        end_attempts(session, (Attempt.job_id == job_id) & (Attempt.epoch == epoch), AttemptOutcome.LOST)
        if gives_up:
            count_failed(session, batch_id, document_id)


def _publishable() -> Select[int, int, str, int, str, str, int, int]:
    return select(
        Job.id,
        Job.epoch,
        Job.model,
        Job.priority,
        Job.batch_id,
        Document.name.label("document"),
        Job.level,
        Job.position,
    ).join(Document, Document.id == Job.document_id)
