"""The state of the queues, for `docmill status --watch` and the dispatcher's metrics.

Both read it every few seconds: it costs the same for ten jobs and for a million.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from docmill.settings.defaults import WORKER_SEEN_S
from docmill.storage.columns import db_now
from docmill.storage.states import BatchState, JobState
from docmill.storage.tables import Batch, Job, Worker


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """One model's queue. `announced` jobs are in the broker, `waiting` ones not yet."""

    model: str
    batches: int
    documents_open: int
    announced: int
    waiting: int
    running: int
    workers: int
    slots: int


def read_queues(session: Session) -> list[QueueStatus]:
    """The queue of each model that an unpaused batch in progress needs or that a worker serves, by name."""
    ended = Batch.jobs_succeeded + Batch.jobs_failed + Batch.jobs_cancelled + Batch.jobs_expired
    asked = {
        model: counts
        for model, *counts in session.execute(
            select(Batch.model, func.count(), func.sum(Batch.documents_open), func.sum(Batch.jobs_total - ended))
            .where(Batch.state == BatchState.IN_PROGRESS, Batch.paused_at.is_(None))
            .group_by(Batch.model)
        )
    }
    served = {
        model: counts
        for model, *counts in session.execute(
            select(Worker.model, func.count(), func.sum(Worker.slots))
            .where(Worker.stopped_at.is_(None), Worker.seen_at > db_now() - WORKER_SEEN_S)
            .group_by(Worker.model)
        )
    }
    leased = select(Job.model).where(Job.state == JobState.RUNNING, Job.lease_until > 0.0)  # by its index
    running = Counter(session.scalars(leased))
    announced = {
        model: session.scalar(
            select(func.count()).where(Job.model == model, Job.state == JobState.QUEUED, Job.published_at.is_not(None))
        )
        or 0
        for model in asked
    }
    found = []
    for model in sorted({*asked, *served}):
        batches, documents, jobs = asked.get(model, (0, 0, 0))
        workers, slots = served.get(model, (0, 0))
        waiting = max(0, jobs - running[model] - announced.get(model, 0))
        found.append(
            QueueStatus(model, batches, documents, announced.get(model, 0), waiting, running[model], workers, slots)
        )
    return found
