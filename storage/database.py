"""A database with two kinds of transaction: `read` and `write`.

SQLite runs in WAL mode. Write transactions start with BEGIN IMMEDIATE, because a read transaction that turns into a
write fails at once, whatever the busy timeout. Only one thread per process writes at a time, because SQLite's own lock
is unfair. Postgres runs at READ COMMITTED, where row locks decide between competing compare-and-set UPDATEs.
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
# Without these, libpq waits 15 minutes or forever for a host that has become unreachable.
_TCP_TIMEOUTS = {"tcp_user_timeout": 10_000, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
_WRITES = "docmill_writes"
_READ_ONLY = "25006"  # SQLSTATE of read_only_sql_transaction
# By name, because each driver has its own classes. sqlite3 raises DatabaseError itself for a damaged file.
_OPERATIONAL = ("OperationalError", "InterfaceError", "InternalError", "DatabaseError")


class Database:
    """A pool of connections to one database; safe to share between threads.

    `pool_size` limits the Postgres connections that are kept open. Raises StorageError for an unusable URL.
    """

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
        """Open a transaction that only reads. Raises DatabaseUnavailable."""
        with _translated(str(self)), Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Open a transaction that commits at the end of the block, or rolls back on an exception.

        Raises DatabaseUnavailable.
        """
        with (
            _translated(str(self)),
            self._writing or nullcontext(),
            Session(self._writer, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def parse_url(url: str) -> URL:
    """Parse a database URL and set the driver that docmill uses. Raises StorageError for any other URL."""
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
    raise StorageError(f"storage.url must start with sqlite:// or postgresql://, not {backend}://")


def _sqlite_engine(url: URL) -> Engine:
    if url.database in (None, "", ":memory:"):
        raise StorageError("storage.url must name a SQLite file: an in-memory database cannot be shared")
    Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url, json_serializer=safe_json, connect_args={"timeout": _SQLITE_BUSY_S, "check_same_thread": False}
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # `begin` below starts transactions, not the driver
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
        connect_args={"connect_timeout": 10, "application_name": "docmill", **_TCP_TIMEOUTS},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        # A worker that freezes inside a transaction must not lock its batch's row forever.
        connection.execute(f"SET idle_in_transaction_session_timeout = '{_POSTGRES_IDLE_S}s'")
        connection.commit()

    @event.listens_for(engine, "handle_error")
    def reconnect(context: ExceptionContext) -> None:
        # The server has become read-only, for example after a failover: connect again, perhaps to another server.
        if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
            context.is_disconnect = True

    return engine


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """Raise operational errors (unreachable, locked, full, read-only) as DatabaseUnavailable."""
    try:
        yield
    except DBAPIError as error:
        if type(error).__name__ not in _OPERATIONAL:
            raise
        reason = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else "no response"
        raise DatabaseUnavailable(f"the database {name} failed: {reason}") from error
    except NoFreeConnection as error:
        raise DatabaseUnavailable(f"the database {name} is too slow: no connection became free in time") from error
