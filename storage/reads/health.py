"""How fast the database responds, and what its rows show about workers and dispatchers."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from sqlalchemy import exists, func, select

from docmill.settings.defaults import WORKER_SEEN_S
from docmill.storage.columns import db_now
from docmill.storage.database import Database
from docmill.storage.states import BatchState, JobState
from docmill.storage.tables import Batch, Job, Worker

LATE_S = 30.0  # work that is overdue for this long shows that no dispatcher runs
_PINGS = 11


@dataclass(frozen=True, slots=True)
class ResponseTime:
    """Medians in seconds: the time of one statement, and the database's clock minus ours (accurate to half a ping)."""

    ping_s: float
    clock_offset_s: float


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """A worker that has not stopped. `seen_ago_s` is the age of its last heartbeat."""

    name: str
    model: str
    slots: int
    running: int
    seen_ago_s: float
    is_paused: bool

    @property
    def is_alive(self) -> bool:
        """True if its last heartbeat is recent."""
        return self.seen_ago_s <= WORKER_SEEN_S


@dataclass(frozen=True, slots=True)
class OpenWork:
    """Open jobs by model, of batches in progress that are not paused; and the signs that it is not progressing.

    `late_leases`: running jobs whose lease expired and that were not requeued. `starved`: models with queued jobs, none
    of which was published for half a minute.
    """

    jobs: dict[str, int]
    late_leases: int
    starved: tuple[str, ...]
    workers: tuple[WorkerHealth, ...]


def time_responses(database: Database) -> ResponseTime:
    """Query the database's time several times. Raises DatabaseUnavailable."""
    pings, offsets = [], []
    with database.read() as session:
        session.execute(select(1))  # connects
        for _ in range(_PINGS):
            asked, began = time.time(), time.monotonic()
            now = session.execute(select(db_now())).scalar_one()
            ping_s = time.monotonic() - began
            pings.append(ping_s)
            offsets.append(now - (asked + ping_s / 2))
    return ResponseTime(statistics.median(pings), statistics.median(offsets))


def read_open_work(database: Database) -> OpenWork:
    """Open jobs and running workers. The schema must be this version's. Raises DatabaseUnavailable."""
    in_progress = (Batch.state == BatchState.IN_PROGRESS) & Batch.paused_at.is_(None)
    ended = Batch.jobs_succeeded + Batch.jobs_failed + Batch.jobs_cancelled + Batch.jobs_expired
    is_queued, is_late = Job.state == JobState.QUEUED, db_now() - LATE_S
    due = exists().where(
        Job.batch_id == Batch.id, Job.published_at.is_(None), is_queued, Job.not_before < is_late,
        Job.created_at < is_late,
    )  # fmt: skip
    with database.read() as session:
        open_jobs = session.execute(
            select(Batch.model, func.sum(Batch.jobs_total - ended)).where(in_progress).group_by(Batch.model)
        )
        workers = session.execute(
            select(
                Worker.name, Worker.model, Worker.slots, Worker.running, db_now() - Worker.seen_at,
                Worker.paused_at.is_not(None),
            )
            .where(Worker.stopped_at.is_(None))
            .order_by(Worker.name)
        )  # fmt: skip
        return OpenWork(
            jobs={model: int(count) for model, count in open_jobs if count},
            late_leases=session.execute(
                select(func.count()).where(Job.state == JobState.RUNNING, Job.lease_until < is_late)
            ).scalar_one(),
            starved=tuple(
                model
                for model in session.scalars(
                    select(Batch.model).where(in_progress, due).distinct().order_by(Batch.model)
                ).all()
                if not session.scalar(
                    select(exists().where(Job.model == model, is_queued, Job.published_at.is_not(None)))
                )
            ),
            workers=tuple(WorkerHealth(*row) for row in workers),
        )
