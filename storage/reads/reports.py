"""Reports for people: the progress of batches, queues, workers, failures, and the results of documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select

from docmill.settings.defaults import WORKER_SEEN_S
from docmill.storage.columns import db_now
from docmill.storage.database import Database
from docmill.storage.errors import NoSuchBatch
from docmill.storage.reads.batch_status import BatchStatus, batches_now, status_of
from docmill.storage.reads.documents import DocumentFilter, DocumentReport, read_page
from docmill.storage.reads.eta import RecentAttempt, recent_attempts
from docmill.storage.reads.queues import QueueStatus, read_queues
from docmill.storage.states import AttemptOutcome, BatchState, JobState
from docmill.storage.tables import Attempt, Batch, Job, Worker

_RATE_MEMORY_S = 7 * 24 * 3600.0
_ALL = DocumentFilter()
_AT_WORK = (BatchState.VALIDATING, BatchState.IN_PROGRESS, BatchState.FINALIZING, BatchState.CANCELLING)


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker whose last heartbeat is less than a minute old."""

    name: str
    model: str
    engine: str
    slots: int
    running: int
    started_at: float
    seen_at: float


@dataclass(frozen=True, slots=True)
class FailureReason:
    """Failed jobs of one kind, with one of their messages."""

    kind: str
    example: str
    count: int


class Reports:
    """Reads only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def batch(self, batch_id: str) -> BatchStatus:
        """The status of one batch. Raises NoSuchBatch."""
        with self._database.read() as session:
            row = session.execute(batches_now().where(Batch.id == batch_id)).one_or_none()
            if row is None:
                raise NoSuchBatch(batch_id)
            return status_of(session, row)

    def batches(self, limit: int = 20) -> list[BatchStatus]:
        """The newest batches, newest first."""
        with self._database.read() as session:
            rows = session.execute(batches_now().order_by(Batch.created_at.desc()).limit(limit)).all()
            return [status_of(session, row) for row in rows]

    def at_work(self, limit: int) -> list[BatchStatus]:
        """Batches that have not ended, by priority and age."""
        with self._database.read() as session:
            rows = session.execute(
                batches_now().where(Batch.state.in_(_AT_WORK)).order_by(Batch.priority, Batch.created_at).limit(limit)
            ).all()
            return [status_of(session, row) for row in rows]

    def queues(self) -> list[QueueStatus]:
        """The queue of each model that an unpaused batch in progress needs or that a worker serves, by name."""
        with self._database.read() as session:
            return read_queues(session)

    def now(self) -> float:
        """The database's time."""
        with self._database.read() as session:
            return session.execute(select(db_now())).scalar_one()

    def recent_attempts(self, models: Sequence[str]) -> list[RecentAttempt]:
        """The newest successful attempts of these models."""
        with self._database.read() as session:
            return recent_attempts(session, models, session.execute(select(db_now())).scalar_one())

    def workers(self) -> list[WorkerStatus]:
        """Workers that have not stopped and whose last heartbeat is less than a minute old."""
        with self._database.read() as session:
            rows = session.execute(
                select(
                    Worker.name, Worker.model, Worker.engine, Worker.slots, Worker.running, Worker.started_at,
                    Worker.seen_at,
                )
                .where(Worker.stopped_at.is_(None), Worker.seen_at > db_now() - WORKER_SEEN_S)
                .order_by(Worker.name)
            )  # fmt: skip
            return [WorkerStatus(*row) for row in rows]

    def failures(self, batch_id: str, limit: int = 10, newest: int | None = None) -> list[FailureReason]:
        """Why jobs of the batch failed, the most frequent kind first; `newest`: counts only so many failed jobs."""
        failed = (
            select(Job.error_kind, Job.error)
            .where(Job.batch_id == batch_id, Job.state == JobState.FAILED)
            .order_by(Job.id.desc() if newest is not None else None)
            .limit(newest)
            .subquery()
        )
        count = func.count().label("count")
        with self._database.read() as session:
            rows = session.execute(
                select(func.coalesce(failed.c.error_kind, "unknown"), func.min(failed.c.error), count)
                .group_by(failed.c.error_kind)
                .order_by(count.desc())
                .limit(limit)
            )
            return [FailureReason(kind, example or "", jobs) for kind, example, jobs in rows]

    def recent_tokens_per_s(self, model: str) -> float | None:
        """Tokens per second of this model here: over its newest thousand attempts of the last week."""
        newest = (
            select(Attempt.started_at, Attempt.finished_at, Attempt.prompt_tokens, Attempt.completion_tokens)
            .where(
                Attempt.model == model,
                Attempt.outcome == AttemptOutcome.SUCCEEDED,
                Attempt.finished_at > db_now() - _RATE_MEMORY_S,
            )
            .order_by(Attempt.finished_at.desc())
            .limit(1000)
            .subquery()
        )
        with self._database.read() as session:
            tokens, first, last = session.execute(
                select(
                    func.sum(newest.c.prompt_tokens + newest.c.completion_tokens),
                    func.min(newest.c.started_at),
                    func.max(newest.c.finished_at),
                )
            ).one()
        return tokens / (last - first) if tokens and last > first else None

    def documents(self, batch_id: str, wanted: DocumentFilter = _ALL) -> Iterator[DocumentReport]:
        """The batch's documents that match `wanted`, in input order, read in pages."""
        after: int | None = -1
        while after is not None:
            with self._database.read() as session:
                page, after = read_page(session, batch_id, after, wanted)
            yield from page
