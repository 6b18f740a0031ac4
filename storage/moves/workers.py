"""The table of workers: which model each serves, with how many slots, and when it was last seen."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Update, delete, func, insert, select, update

from docmill.storage.columns import db_now
from docmill.storage.database import Database
from docmill.storage.errors import NoSuchWorker
from docmill.storage.moves.attempts import WorkerIdentity
from docmill.storage.moves.worker_samples import KEPT_S, Sample, add_sample, forget_samples
from docmill.storage.tables import Worker


class WorkerRow:
    """The row of one worker, which the worker itself keeps up to date."""

    def __init__(self, database: Database, identity: WorkerIdentity) -> None:
        self._database = database
        self._identity = identity

    def register(self, *, slots: int) -> None:
        """Insert the worker's row. Workers and samples not seen for a week are deleted."""
        with self._database.write() as session:
            forget_samples(session)
            session.execute(
                delete(Worker).where((Worker.name == self._identity.name) | (Worker.seen_at < db_now() - KEPT_S))
            )
            session.execute(
                insert(Worker).values(
                    name=self._identity.name,
                    model=self._identity.model,
                    engine=self._identity.engine,
                    slots=slots,
                    running=0,
                    started_at=db_now(),
                    seen_at=db_now(),
                )
            )

    def seen(self, *, running: int, sample: Sample | None = None) -> bool:
        """Record a heartbeat of a worker that holds `running` jobs. Returns True if the worker is paused."""
        with self._database.write() as session:
            if sample is not None:
                add_sample(session, self._identity.name, sample)
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
