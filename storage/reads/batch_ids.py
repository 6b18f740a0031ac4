"""Batch ids for shell completion, without SQLAlchemy, which takes too long to import while a user waits."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

_TIMEOUT_S = 1
_NEWEST = "SELECT id, state FROM batches ORDER BY created_at DESC LIMIT"


def newest_batches(database: str | Path, limit: int) -> list[tuple[str, str]]:
    """The ids and states of the newest batches, in a database given by its URL or the path of a SQLite file.

    Creates no database. Raises whatever the driver raises.
    """
    query = f"{_NEWEST} {int(limit)}"
    if isinstance(database, Path):
        return _from_sqlite(database, query)
    scheme, _, rest = database.partition("://")
    if scheme.startswith("sqlite"):
        return _from_sqlite(Path(rest.removeprefix("/").partition("?")[0]), query)
    import psycopg

    with psycopg.connect(f"postgresql://{rest}", connect_timeout=_TIMEOUT_S) as connection:
        return [(row[0], row[1]) for row in connection.execute(query)]


def _from_sqlite(path: Path, query: str) -> list[tuple[str, str]]:
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=_TIMEOUT_S)
    try:
        return [(row[0], row[1]) for row in connection.execute(query)]
    finally:
        connection.close()
