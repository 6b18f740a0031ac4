"""Workers: which model each serves, with how many slots, when it was last seen, and samples of what it uses.

The rows of workers and samples are kept for a week.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Update, delete, func, insert, select, update

from docmill.storage.columns import db_now, row_of
from docmill.storage.database import Database
from docmill.storage.errors import NoSuchWorker
from docmill.storage.moves.attempts import WorkerIdentity
from docmill.storage.tables import Worker, WorkerSample

_KEPT_S = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample. The fields are columns of the table `worker_samples`, which documents them."""

    running: int
    slots: int
    rss_bytes: int
    worker_cpu_percent: float
    engine_cpu_percent: float | None
    vram_bytes: int | None
    gpu_percent: float | None
    power_w: float | None
    jobs: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class WorkerRow:
    """The row of one worker, which the worker itself keeps up to date."""

    def __init__(self, database: Database, identity: WorkerIdentity) -> None:
        self._database = database
        self._identity = identity

    def register(self, *, slots: int) -> None:
        """Insert the worker's row. Workers and samples not seen for a week are deleted."""
        with self._database.write() as session:
            session.execute(delete(WorkerSample).where(WorkerSample.at < db_now() - _KEPT_S))
            session.execute(
                delete(Worker).where((Worker.name == self._identity.name) | (Worker.seen_at < db_now() - _KEPT_S))
            )
            session.execute(
                insert(Worker).values(
                    **row_of(self._identity), slots=slots, running=0, started_at=db_now(), seen_at=db_now()
                )
            )

    def seen(self, *, running: int, sample: Sample | None = None) -> bool:
        """Record a heartbeat of a worker that holds `running` jobs. Returns True if the worker is paused."""
        with self._database.write() as session:
            if sample is not None:
                values = {"worker": self._identity.name, "at": db_now()} | row_of(sample)
                session.execute(insert(WorkerSample).values(**values))
            paused_at = session.scalar(self._update(running=running, seen_at=db_now()).returning(Worker.paused_at))
        return paused_at is not None

    def stopped(self) -> None:
        """Record that the worker has shut down."""
        with self._database.write() as session:
            session.execute(self._update(running=0, stopped_at=db_now()))

    def _update(self, **values: object) -> Update:
        return update(Worker).where(Worker.name == self._identity.name).values(**values)


def pause_worker(database: Database, name: str) -> None:
    """Let a worker claim no further jobs; the ones it runs finish. Raises NoSuchWorker."""
    _set_paused_at(database, name, func.coalesce(Worker.paused_at, db_now()))


def resume_worker(database: Database, name: str) -> None:
    """Let a paused worker claim jobs again. Raises NoSuchWorker."""
    _set_paused_at(database, name, None)


def _set_paused_at(database: Database, name: str, paused_at: ColumnElement[float] | None) -> None:
    with database.write() as session:
        found = session.scalars(
            update(Worker)
            .where(Worker.name == name, Worker.stopped_at.is_(None))
            .values(paused_at=paused_at)
            .returning(Worker.name)
        ).all()
    if not found:
        with database.read() as session:
            known = session.scalars(select(Worker.name).where(Worker.stopped_at.is_(None)).order_by(Worker.name)).all()
        raise NoSuchWorker(name, known)
