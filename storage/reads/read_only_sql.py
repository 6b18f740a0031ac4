"""Run a user's SQL: one statement that only reads; the database itself rejects everything that writes.

SQLite opens the file read-only and allows only reads (no ATTACH, no extensions). Postgres uses a READ ONLY transaction
and sends one prepared statement, so that nothing can follow a semicolon. Rows are streamed, never held in memory.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from docmill.storage.database import Database
from docmill.storage.errors import QueryRefused, StorageError

_FETCH = 1_000
_CLOCK_STEPS = 10_000  # SQLite's instructions between two checks of the timeout
_COMMENT = re.compile(r"\s+|--[^\n]*(\n|$)|/\*.*?\*/", re.DOTALL)
_WORD = re.compile(r"\(*\s*([A-Za-z]+)")
_READS = ("SELECT", "WITH", "VALUES", "EXPLAIN", "TABLE", "SHOW", "PRAGMA")
_CURSORS = ("SELECT", "WITH", "VALUES", "TABLE")
_PRAGMAS = ("table_info", "table_xinfo", "table_list", "index_list", "index_info", "foreign_key_list")
_ALLOWED = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE)


class QueryTimeout(StorageError):
    """The statement took longer than its timeout."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        super().__init__(f"the query took longer than {timeout_s:g} s and was stopped; raise --timeout")


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The column names and rows of a statement. Read the rows once, inside the `with` block."""

    columns: Sequence[str]
    rows: Iterator[Sequence[Any]]


@contextmanager
def run_query(database: Database, statement: str, *, timeout_s: float | None = None) -> Iterator[QueryResult]:
    """Run one statement that only reads, for at most `timeout_s` seconds (default: no limit).

    Raises QueryRefused for a statement that writes or is not valid SQL, QueryTimeout, and StorageError.
    """
    word = _first_word(statement)
    if word not in _READS:
        raise QueryRefused(
            "docmill query is read-only: a statement must begin with SELECT, WITH, VALUES or EXPLAIN"
            + (f", not with {word}" if word else "")
        )
    run = _on_sqlite if database.is_sqlite else _on_postgres
    with run(database, statement, timeout_s) as answer:
        yield answer


def _first_word(statement: str) -> str:
    at = 0
    while (comment := _COMMENT.match(statement, at)) and comment.end() > at:
        at = comment.end()
    word = _WORD.match(statement, at)
    return word[1].upper() if word else ""


@contextmanager
def _on_sqlite(database: Database, statement: str, timeout_s: float | None) -> Iterator[QueryResult]:
    path = Path(str(database.url.database))
    if not path.is_file():
        raise StorageError(f"there is no database {path}")
    connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, isolation_level=None)
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.set_authorizer(_authorize)
        if timeout_s is not None:
            ends_at = time.monotonic() + timeout_s
            connection.set_progress_handler(lambda: time.monotonic() > ends_at, _CLOCK_STEPS)
        cursor = connection.execute(statement)
        yield QueryResult([name for name, *_ in cursor.description or ()], iter(cursor))
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise _sqlite_error(error, timeout_s) from error
    finally:
        connection.close()


def _authorize(action: int, first: str | None, second: str | None, *_: object) -> int:
    allowed = (
        action in _ALLOWED
        or (action == sqlite3.SQLITE_FUNCTION and second != "load_extension")
        or (action == sqlite3.SQLITE_PRAGMA and first in _PRAGMAS)
    )
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _sqlite_error(error: Exception, timeout_s: float | None) -> StorageError:
    text = str(error)
    if timeout_s is not None and text == "interrupted":
        return QueryTimeout(timeout_s)
    if "not authorized" in text or "prohibited" in text:
        return QueryRefused("docmill query is read-only: the database rejected the part of the statement that writes")
    return QueryRefused(f"the database rejected this statement: {text}")


@contextmanager
def _on_postgres(database: Database, statement: str, timeout_s: float | None) -> Iterator[QueryResult]:
    import psycopg

    arguments, options = database.engine.dialect.create_connect_args(database.url)
    try:
        with psycopg.connect(*arguments, **options, connect_timeout=10, application_name="docmill query") as connection:
            connection.read_only = True
            milliseconds = 0 if timeout_s is None else max(1, round(timeout_s * 1000))
            connection.execute(f"SET LOCAL statement_timeout = {milliseconds}")
            yield _postgres_answer(connection, statement)
            connection.rollback()
    except psycopg.errors.QueryCanceled as error:
        if timeout_s is None:
            raise StorageError(f"the query was stopped: {error}") from error
        raise QueryTimeout(timeout_s) from error
    except psycopg.errors.ReadOnlySqlTransaction as error:
        raise QueryRefused(f"docmill query is read-only: {_first_line(error)}") from error
    except psycopg.OperationalError as error:
        raise StorageError(f"the database {database} failed: {_first_line(error)}") from error
    except psycopg.Error as error:
        raise QueryRefused(f"the database rejected this statement: {_first_line(error)}") from error


def _postgres_answer(connection: Any, statement: str) -> QueryResult:
    """Use a server-side cursor where the statement allows one, so that its rows are fetched in portions."""
    if _first_word(statement) in _CURSORS:
        cursor = connection.cursor(name="docmill_query")
        cursor.itersize = _FETCH
        cursor.execute(statement.rstrip().rstrip(";"))
    else:
        cursor = connection.cursor()
        cursor.execute(statement, prepare=True)
    return QueryResult([column.name for column in cursor.description or ()], iter(cursor))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
