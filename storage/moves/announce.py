"""What the dispatcher asks of the jobs table: which to publish, which to rescue, which messages were lost.

The broker holds a bounded window of each model's queue; the table is the whole of it. A crash between
publishing and `mark_published` doubles a message at worst, and the claim absorbs it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from sqlalchemy import Double, Integer, Select, Table, and_, bindparam, case, func, select, update
from sqlalchemy.orm import Session

from docmill.settings.defaults import WORKER_SEEN_S
from docmill.storage.columns import db_now
from docmill.storage.database import Database
from docmill.storage.moves.counters import count_failed, end_attempts
from docmill.storage.states import AttemptOutcome, BatchState, JobState
from docmill.storage.tables import Attempt, Batch, Document, Job, Worker


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
        """Models that batches in progress, not paused, ask for."""
        with self._database.read() as session:
            return list(session.scalars(_MODELS_AT_WORK))

    def published(self, model: str) -> int:
        """Messages that should lie on the model's queue."""
        with self._database.read() as session:
            return session.scalar(_PUBLISHED, {"model": model}) or 0

    def slots(self, model: str) -> int:
        """Jobs that the workers seen lately can run at once."""
        with self._database.read() as session:
            return session.scalar(_SLOTS, {"model": model}) or 0

    def unpublished(self, model: str, limit: int) -> list[Publishable]:
        """At most `limit` jobs that are due and not announced, in order of priority, batch and age."""
        found: list[Publishable] = []
        with self._database.read() as session:
            for batch_id in session.scalars(_BATCHES_TO_ANNOUNCE, {"model": model}).all():
                if len(found) >= limit:
                    break
                due = session.execute(_UNPUBLISHED, {"batch_id": batch_id, "limit": limit - len(found)})
                found += [Publishable(**row._asdict()) for row in due]
        return found

    def overdue(self, model: str, *, age_s: float, limit: int) -> list[Publishable]:
        """Jobs announced long ago and still queued: their message may be lost.

        The wait grows with the square of the announcements: a long queue is not flooded with copies of itself.
        """
        with self._database.read() as session:
            rows = session.execute(_OVERDUE, {"model": model, "age_s": age_s, "limit": limit})
            return [Publishable(**row._asdict()) for row in rows]

    def mark_published(self, jobs: Sequence[Publishable]) -> None:
        """Note that messages of these jobs are on the queue (a job claimed since then keeps its row)."""
        if not jobs:
            return
        table = cast(Table, Job.__table__)
        same = (table.c.id == bindparam("job_id"), table.c.epoch == bindparam("job_epoch"))
        with self._database.write() as session:
            session.connection().execute(
                update(table)
                .where(*same, table.c.state == JobState.QUEUED)
                .values(published_at=db_now(), publishes=table.c.publishes + 1),
                [{"job_id": job.id, "job_epoch": job.epoch} for job in sorted(jobs, key=lambda job: job.id)],
            )

    def rescue(self, *, max_losses: int, limit: int = 500) -> int:
        """Queue again what dead workers held; fail a job that was lost `max_losses` times. Returns how many."""
        with self._database.read() as session:  # mostly there is nothing, and SQLite has one writer
            if session.scalar(_ANY_EXPIRED) is None:
                return 0
        with self._database.write() as session:
            expired = session.execute(_EXPIRED, {"limit": limit}).all()
            failed: Counter[tuple[str, int]] = Counter()
            for row in expired:
                gives_up = row.losses + 1 >= max_losses
                self._take_back(session, row.id, row.epoch, row.losses, gives_up=gives_up)
                if gives_up:
                    failed[row.batch_id, row.document_id] += 1
            count_failed(session, failed)
            return len(expired)

    @staticmethod
    def _take_back(session: Session, job_id: int, epoch: int, losses: int, *, gives_up: bool) -> None:
        reason = f"its worker was lost {losses + 1} times while it ran"
        session.execute(
            update(Job)
            .where(Job.id == job_id, Job.epoch == epoch, Job.state == JobState.RUNNING)  # locked by its reader
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
        )
        end_attempts(session, (Attempt.job_id == job_id) & (Attempt.epoch == epoch), AttemptOutcome.LOST)


def _publishable() -> Select[int, int, str, int, str, str, int, int]:
    """A job with its message's priority: one that was begun before, and taken back, goes ahead of its like."""
    begun = case((Job.epoch > 0, 1), else_=0)
    return select(
        Job.id,
        Job.epoch,
        Job.model,
        case((Job.priority > begun, Job.priority - begun), else_=0).label("priority"),
        Job.batch_id,
        Document.name.label("document"),
        Job.level,
        Job.position,
    ).join(Document, Document.id == Job.document_id)


# Built once: building one of these takes longer than running it, and a dispatcher asks several times a second.
_AT_WORK = and_(Batch.state == BatchState.IN_PROGRESS, Batch.paused_at.is_(None))
_IS_DUE = and_(Job.state == JobState.QUEUED, Job.published_at.is_(None), Job.not_before <= db_now())
_IS_PUBLISHED = and_(
    Job.model == bindparam("model"), Job.state == JobState.QUEUED, Job.published_at.is_not(None)
)  # fmt: skip
_HAS_EXPIRED = and_(Job.state == JobState.RUNNING, Job.lease_until < db_now())

_MODELS_AT_WORK = select(Batch.model).where(_AT_WORK).distinct()
_PUBLISHED = select(func.count()).where(_IS_PUBLISHED)
_SLOTS = select(func.coalesce(func.sum(Worker.slots), 0)).where(
    Worker.model == bindparam("model"), Worker.stopped_at.is_(None), Worker.seen_at > db_now() - WORKER_SEEN_S
)
_BATCHES_TO_ANNOUNCE = (
    select(Batch.id)
    .where(_AT_WORK, Batch.model == bindparam("model"))
    .where(select(Job.id).where(Job.batch_id == Batch.id, _IS_DUE).exists())
    .order_by(Batch.priority, Batch.created_at)
)
_UNPUBLISHED = (
    _publishable()
    .where(Job.batch_id == bindparam("batch_id"), _IS_DUE)
    .order_by(Job.priority, Job.id)
    .limit(bindparam("limit", type_=Integer))
)
_OVERDUE = (
    _publishable()
    .where(_IS_PUBLISHED, Job.published_at < db_now() - bindparam("age_s", type_=Double))
    .where(db_now() - Job.published_at > bindparam("age_s", type_=Double) * Job.publishes * Job.publishes)
    .order_by(Job.published_at)
    .limit(bindparam("limit", type_=Integer))
)
_ANY_EXPIRED = select(Job.id).where(_HAS_EXPIRED).limit(1)
_EXPIRED = (
    select(Job.id, Job.epoch, Job.losses, Job.batch_id, Job.document_id)
    .where(_HAS_EXPIRED)
    .order_by(Job.lease_until)
    .limit(bindparam("limit", type_=Integer))
    .with_for_update(skip_locked=True, key_share=True)
)
