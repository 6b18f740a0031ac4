"""The workers' own rows: who serves which model, with how many slots, seen when."""

from __future__ import annotations

from sqlalchemy import delete, insert, update

from storage.columns import db_now
from storage.database import Database
from storage.jobs import WorkerIdentity
from storage.tables import Worker

_FORGET_S = 7 * 24 * 3600.0


class Workers:
    """One worker's hand on its row."""

    def __init__(self, database: Database, identity: WorkerIdentity) -> None:
        self._database = database
        self._identity = identity

    def register(self, *, slots: int) -> None:
        """Announce the worker; rows of workers not seen for a week are removed."""
        with self._database.write() as session:
            session.execute(
                delete(Worker).where((Worker.name == self._identity.name) | (Worker.seen_at < db_now() - _FORGET_S))
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

    def seen(self, *, running: int) -> None:
        """Note a heartbeat with `running` jobs held."""
        self._update(running=running, seen_at=db_now())

    def stopped(self) -> None:
        """Note that the worker has ended in order."""
        self._update(running=0, stopped_at=db_now())

    def _update(self, **values: object) -> None:
        with self._database.write() as session:
            session.execute(update(Worker).where(Worker.name == self._identity.name).values(**values))
