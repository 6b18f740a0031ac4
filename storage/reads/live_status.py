"""What goes on just now, at the same cost with ten jobs and with a million: counters, running jobs, the last minutes.

The dispatcher's metrics and `docmill status --watch` read it every few seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select

from docmill.settings.defaults import WORKER_SEEN_S
from docmill.storage.columns import db_now
from docmill.storage.database import Database
from docmill.storage.reads.batch_status import BatchStatus, batches_now, status_of
from docmill.storage.reads.reports import FailureReason
from docmill.storage.states import AttemptOutcome, BatchState, JobState
from docmill.storage.tables import Attempt, Batch, Job, Worker

_FAILURES = 1_000
_AT_WORK = (BatchState.VALIDATING, BatchState.IN_PROGRESS, BatchState.FINALIZING, BatchState.CANCELLING)


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """One model's queue. `announced` jobs lie in the broker; `waiting` ones will be, or wait for their time."""

    model: str
    batches: int
    documents_open: int
    announced: int
    waiting: int
    running: int
    workers: int
    slots: int


@dataclass(frozen=True, slots=True)
class FinishedAttempt:
    """A successful attempt, as far as rates are made of it. Times in seconds since 1970."""

    job_id: int
    epoch: int
    batch_id: str
    worker: str
    started_at: float
    finished_at: float
    prompt_tokens: int
    cached_tokens: int | None
    completion_tokens: int
    peak_memory_bytes: int


class LiveStatus:
    """Reads only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def now(self) -> float:
        """The database's time."""
        with self._database.read() as session:
            return session.execute(select(db_now())).scalar_one()

    def at_work(self, limit: int) -> list[BatchStatus]:
        """Batches that have not ended: the most urgent and oldest first."""
        with self._database.read() as session:
            rows = session.execute(
                batches_now().where(Batch.state.in_(_AT_WORK)).order_by(Batch.priority, Batch.created_at).limit(limit)
            ).all()
            return [status_of(session, row) for row in rows]

    def queues(self) -> list[QueueStatus]:
        """Every model that a batch in progress asks for or that a worker serves, by name; not what is paused."""
        ended = Batch.jobs_succeeded + Batch.jobs_failed + Batch.jobs_cancelled + Batch.jobs_expired
        with self._database.read() as session:
            asked = {
                model: counts
                for model, *counts in session.execute(
                    select(
                        Batch.model, func.count(), func.sum(Batch.documents_open), func.sum(Batch.jobs_total - ended)
                    )
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
                    select(func.count()).where(
                        Job.model == model, Job.state == JobState.QUEUED, Job.published_at.is_not(None)
                    )
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

    def finished_since(self, models: Sequence[str], since: float, limit: int = 20_000) -> list[FinishedAttempt]:
        """Successful attempts of these models that ended at `since` or later; the newest where they are too many."""
        with self._database.read() as session:
            rows = session.execute(
                select(
                    Attempt.job_id, Attempt.epoch, Job.batch_id, Attempt.worker, Attempt.started_at,
                    Attempt.finished_at,
                    func.coalesce(Attempt.prompt_tokens, 0).label("prompt_tokens"),
                    Attempt.cached_tokens,
                    func.coalesce(Attempt.completion_tokens, 0).label("completion_tokens"),
                    func.coalesce(Attempt.peak_memory_bytes, 0).label("peak_memory_bytes"),
                )
                .join(Job, Job.id == Attempt.job_id)
                .where(
                    Attempt.model.in_(models),
                    Attempt.finished_at >= since,
                    Attempt.outcome == AttemptOutcome.SUCCEEDED,
                )
                .order_by(Attempt.finished_at.desc())
                .limit(limit)
            )  # fmt: skip
            return [FinishedAttempt(**row._asdict()) for row in rows]

    def failures(self, batch_id: str) -> list[FailureReason]:
        """Why the batch's last thousand failed jobs failed, the most frequent kind first."""
        newest = (
            select(Job.error_kind, Job.error)
            .where(Job.batch_id == batch_id, Job.state == JobState.FAILED)
            .order_by(Job.id.desc())
            .limit(_FAILURES)
            .subquery()
        )
        count = func.count().label("count")
        with self._database.read() as session:
            rows = session.execute(
                select(func.coalesce(newest.c.error_kind, "unknown"), func.min(newest.c.error), count)
                .group_by(newest.c.error_kind)
                .order_by(count.desc())
            )
            return [FailureReason(kind, example or "", jobs) for kind, example, jobs in rows]
