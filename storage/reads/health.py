"""How the database is, and what its rows say of the services around it: who was seen, what waits too long."""

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

LATE_S = 30.0  # what a dispatcher leaves undone for so long, no dispatcher does
_PINGS = 11


@dataclass(frozen=True, slots=True)
class Answer:
    """`ping_s`: the median of one statement. `clock_offset_s`: the database's clock minus ours, to half a ping."""

    ping_s: float
    clock_offset_s: float


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """A worker that has not ended in order. `seen_ago_s` is the age of its last heartbeat."""

    name: str
    model: str
    slots: int
    running: int
    seen_ago_s: float
    is_paused: bool

    @property
    def is_alive(self) -> bool:
        """Whether it was seen lately."""
        return self.seen_ago_s <= WORKER_SEEN_S


@dataclass(frozen=True, slots=True)
class Work:
    """What is open. `jobs` by model, of batches in progress that are not paused.

    `late_leases`: running jobs whose worker is gone and that nobody has queued again. `starved`: models with jobs
    to run and none announced for half a minute.
    """

    jobs: dict[str, int]
    late_leases: int
    starved: tuple[str, ...]
    workers: tuple[WorkerSeen, ...]


def time_answers(database: Database) -> Answer:
    """Ask the database the time, several times over. Raises DatabaseUnavailable."""
    pings, offsets = [], []
    with database.read() as session:
        session.execute(select(1))  # connects
        for _ in range(_PINGS):
            asked, began = time.time(), time.monotonic()
            now = session.execute(select(db_now())).scalar_one()
            took = time.monotonic() - began
            pings.append(took)
            offsets.append(now - (asked + took / 2))
    return Answer(statistics.median(pings), statistics.median(offsets))


def read_work(database: Database) -> Work:
    """What is open and who was seen; the schema must be this version's. Raises DatabaseUnavailable."""
    with database.read() as session:
        ended = Batch.jobs_succeeded + Batch.jobs_failed + Batch.jobs_cancelled + Batch.jobs_expired
        at_work = (Batch.state == BatchState.IN_PROGRESS) & Batch.paused_at.is_(None)
        rows = session.execute(
            select(Batch.model, func.sum(Batch.jobs_total - ended)).where(at_work).group_by(Batch.model)
        )
        jobs = {model: int(count) for model, count in rows if count}
        late = session.execute(
            select(func.count()).where(Job.state == JobState.RUNNING, Job.lease_until < db_now() - LATE_S)
        ).scalar_one()
        seen_ago = (db_now() - Worker.seen_at).label("seen_ago")
        workers = session.execute(
            select(Worker.name, Worker.model, Worker.slots, Worker.running, seen_ago, Worker.paused_at)
            .where(Worker.stopped_at.is_(None))
            .order_by(Worker.name)
        ).all()
        queued = (Job.state == JobState.QUEUED, Job.not_before < db_now() - LATE_S, Job.created_at < db_now() - LATE_S)
        due = exists().where(Job.batch_id == Batch.id, Job.published_at.is_(None), *queued)
        starved = [
            model
            for model in session.scalars(select(Batch.model).where(at_work, due).distinct())
            if not session.scalar(
                select(exists().where(Job.model == model, Job.state == JobState.QUEUED, Job.published_at.is_not(None)))
            )
        ]
    return Work(
        jobs=jobs,
        late_leases=late,
        starved=tuple(sorted(starved)),
        workers=tuple(
            WorkerSeen(row.name, row.model, row.slots, row.running, float(row.seen_ago), row.paused_at is not None)
            for row in workers
        ),
    )
