"""One database, two kinds of transaction: `read` and `write`.

SQLite: WAL, every write transaction begins with BEGIN IMMEDIATE, one writer thread a process (its lock is
unfair, and a read that turns into a write fails at once whatever the busy timeout). Postgres: READ COMMITTED,
where the compare-and-set UPDATEs of this package decide races by row locks.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as NoFreeConnection
from sqlalchemy.orm import Session

from docmill.storage.columns import safe_json
from docmill.storage.errors import DatabaseUnavailable, StorageError

_SQLITE_BUSY_S = 30
_POSTGRES_IDLE_S = 10
# Over TCP a host that is cut off says nothing: without these libpq waits for it for a quarter of an hour, or for ever.
_SILENT = {"tcp_user_timeout": 10_000, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
_WRITES = "docmill_writes"
_READ_ONLY = "25006"  # SQLSTATE of read_only_sql_transaction
# By name: each driver has its own. DatabaseError itself is what sqlite3 raises for a damaged file.
_OPERATIONAL = ("OperationalError", "InterfaceError", "InternalError", "DatabaseError")


class Database:
    """A pool of connections to one database. Safe to share between threads."""

    def __init__(self, url: str, *, pool_size: int = 5) -> None:
        self.url = parse_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = _sqlite_engine(self.url) if self.is_sqlite else _postgres_engine(self.url, pool_size)
        self._writing = threading.RLock() if self.is_sqlite else None
        self._writer = self.engine.execution_options(**{_WRITES: True})

    def __str__(self) -> str:
        return self.url.difference_update_query(["password"]).render_as_string(hide_password=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that sees one state of the database and changes nothing."""
        with _translated(str(self)), Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that commits when the block ends and rolls back when it raises."""
        with (
            _translated(str(self)),
            self._writing or nullcontext(),
            Session(self._writer, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    def close(self) -> None:
        """Close the pool's connections."""
        self.engine.dispose()


def parse_url(url: str) -> URL:
    """The URL with docmill's driver for its database. Raises StorageError for what is no database URL."""
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError):
        raise StorageError(
            "storage.url is not a database URL; use sqlite:///path/to/file.db or postgresql://user@host/name"
        ) from None
    if backend == "sqlite":
        return parsed
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    raise StorageError(f"docmill stores in sqlite or postgresql, not in {backend}")


def _sqlite_engine(url: URL) -> Engine:
    if url.database in (None, "", ":memory:"):
        raise StorageError("docmill needs a database file that its processes share, not an in-memory SQLite")
    Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url, json_serializer=safe_json, connect_args={"timeout": _SQLITE_BUSY_S, "check_same_thread": False}
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin below, not in the driver
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgres_engine(url: URL, pool_size: int) -> Engine:
    engine = create_engine(
        url,
        json_serializer=safe_json,
        pool_size=pool_size,
        max_overflow=2,
        pool_pre_ping=True,
        isolation_level="READ COMMITTED",
        connect_args={"connect_timeout": 10, "application_name": "docmill", **_SILENT},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        # A worker that freezes inside a transaction must not hold its batch's row for ever.
        connection.execute(f"SET idle_in_transaction_session_timeout = '{_POSTGRES_IDLE_S}s'")
        connection.commit()

    @event.listens_for(engine, "handle_error")
    def reconnect(context: ExceptionContext) -> None:
        # The server is only to be read now: behind its name may be another one by the next try.
        if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
            context.is_disconnect = True

    return engine


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """Operational trouble (unreachable, locked, full, read-only) leaves as DatabaseUnavailable."""
    try:
        yield
    except DBAPIError as error:
        if type(error).__name__ not in _OPERATIONAL:
            raise
        reason = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else "no answer"
        raise DatabaseUnavailable(f"the database {name} failed: {reason}") from error
    except NoFreeConnection as error:
        raise DatabaseUnavailable(f"the database {name} answers too slowly: no connection was free") from error
