"""A database of each kind, shared by all tests of the package: each test stores its own batches."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import sqlalchemy as sa

from docmill.storage.database import Database
from docmill.storage.schema import upgrade
from tests.unit.insight.report.batches import add_workers


@pytest.fixture(scope="package", params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated database of each kind, with two workers of two slots."""
    if request.param == "sqlite":
        yield from _sqlite()
    else:
        yield from _migrated(_postgres_url(request.getfixturevalue("postgres_admin")))


@pytest.fixture(scope="package")
def sqlite() -> Iterator[Database]:
    """A migrated SQLite database, with two workers of two slots."""
    yield from _sqlite()


def _sqlite() -> Iterator[Database]:
    """In memory if possible: these tests need not wait for the disk."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(prefix="docmill-report-", dir=memory if memory.is_dir() else None) as directory:
        yield from _migrated(f"sqlite:///{directory}/docmill.db")


def _postgres_url(admin: sa.Engine) -> str:
    name = f"report_{uuid.uuid4().hex[:8]}"
    with admin.connect() as connection:
        connection.exec_driver_sql("ALTER SYSTEM SET fsync = off")  # a server of this run only: no crash to survive
        connection.exec_driver_sql("SELECT pg_reload_conf()")
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    return admin.url.set(database=name).render_as_string(hide_password=False)


def _migrated(url: str) -> Iterator[Database]:
    database = Database(url)
    upgrade(database)
    add_workers(database, {"w1": 2, "w2": 2})
    yield database
    database.close()
