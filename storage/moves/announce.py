"""Which jobs the dispatcher announces to the broker, and in which order.

This is the transactional outbox pattern: the table `jobs` holds the whole queue, the broker only a bounded part of each
model's queue. The dispatcher reads jobs here, publishes their messages, and then calls `mark_published`. A crash in
between sends a message twice at worst; the claim ignores the second one.

Order: batches by priority (smaller first) and age; within a batch, jobs by priority and id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from sqlalchemy import Double, Integer, Select, Table, and_, bindparam, case, func, select, update

from docmill.settings.defaults import WORKER_SEEN_S
from docmill.storage.columns import db_now
from docmill.storage.database import Database
from docmill.storage.states import BatchState, JobState
from docmill.storage.tables import Batch, Document, Job, Worker


@dataclass(frozen=True, slots=True)
class Publishable:
    """A job to announce on its model's queue. The fields after `priority` make its message readable in Flower."""

    id: int
    epoch: int
    model: str
    priority: int
    batch_id: str
    document: str
    level: int
    position: int


class Outbox:
    """Finds jobs to announce. Any number of dispatchers may use it at the same time."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def models_at_work(self) -> list[str]:
        """The models of batches that are in progress and not paused."""
        with self.database.read() as session:
            return list(session.scalars(_MODELS_AT_WORK))

    def published(self, model: str) -> int:
        """How many messages should be on the model's queue."""
        with self.database.read() as session:
            return session.scalar(_PUBLISHED, {"model": model}) or 0

    def slots(self, model: str) -> int:
        """How many jobs the model's workers can run at once, counting workers seen within the last minute."""
        with self.database.read() as session:
            return session.scalar(_SLOTS, {"model": model}) or 0

    def unpublished(self, model: str, limit: int) -> list[Publishable]:
        """Return up to `limit` jobs that are due and not announced, in the order of announcement."""
        found: list[Publishable] = []
        with self.database.read() as session:
            for batch_id in session.scalars(_BATCHES_TO_ANNOUNCE, {"model": model}).all():
                if len(found) >= limit:
                    break
                due = session.execute(_UNPUBLISHED, {"batch_id": batch_id, "limit": limit - len(found)})
                found += [Publishable(**row._asdict()) for row in due]
        return found

    def overdue(self, model: str, *, age_s: float, limit: int) -> list[Publishable]:
        """Return jobs that were announced more than `age_s` seconds ago and are still queued.

        Their messages may be lost. The wait grows with the square of the number of announcements, so that a long queue
        is not filled with copies of the same messages.
        """
        with self.database.read() as session:
            rows = session.execute(_OVERDUE, {"model": model, "age_s": age_s, "limit": limit})
            return [Publishable(**row._asdict()) for row in rows]

    def mark_published(self, jobs: Sequence[Publishable]) -> None:
        """Record that messages for these jobs were sent. Jobs claimed in the meantime are not changed."""
        if not jobs:
            return
        table = cast(Table, Job.__table__)
        same = (table.c.id == bindparam("job_id"), table.c.epoch == bindparam("job_epoch"))
        with self.database.write() as session:
            session.connection().execute(
                update(table)
                .where(*same, table.c.state == JobState.QUEUED)
                .values(published_at=db_now(), publishes=table.c.publishes + 1),
                [{"job_id": job.id, "job_epoch": job.epoch} for job in sorted(jobs, key=lambda job: job.id)],
            )


def _publishable() -> Select[int, int, str, int, str, str, int, int]:
    """Select jobs with the priority of their message: jobs that were started before go ahead of equal ones."""
    was_started = case((Job.epoch > 0, 1), else_=0)
    return select(
        Job.id,
        Job.epoch,
        Job.model,
        case((Job.priority > was_started, Job.priority - was_started), else_=0).label("priority"),
        Job.batch_id,
        Document.name.label("document"),
        Job.level,
        Job.position,
    ).join(Document, Document.id == Job.document_id)


# Built once: building such a statement takes longer than running it, and a dispatcher runs several per second.
_AT_WORK = and_(Batch.state == BatchState.IN_PROGRESS, Batch.paused_at.is_(None))
_IS_DUE = and_(Job.state == JobState.QUEUED, Job.published_at.is_(None), Job.not_before <= db_now())
_IS_PUBLISHED = and_(
    Job.model == bindparam("model"), Job.state == JobState.QUEUED, Job.published_at.is_not(None)
)  # fmt: skip

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
