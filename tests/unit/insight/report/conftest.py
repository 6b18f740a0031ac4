"""A database of each kind for all of a module's tests: each stores batches of its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from storage.database import Database
from storage.schema import upgrade
from tests.unit.insight.report.batches import add_workers


@pytest.fixture(scope="package", params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A migrated database of each kind, with two workers of two slots."""
    yield from _migrated(_url(request, tmp_path_factory.mktemp("report")))


@pytest.fixture(scope="package")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A migrated SQLite database, with two workers of two slots."""
    yield from _migrated(f"sqlite:///{tmp_path_factory.mktemp('report')}/docmill.db")


def _url(request: pytest.FixtureRequest, directory: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{directory}/docmill.db"
    server = sa.make_url(request.getfixturevalue("postgres_server")).set(drivername="postgresql+psycopg")
    name = f"report_{uuid.uuid4().hex[:8]}"
    admin = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    admin.dispose()
    return server.set(database=name).render_as_string(hide_password=False)


def _migrated(url: str) -> Iterator[Database]:
    database = Database(url)
    upgrade(database)
    add_workers(database, {"w1": 2, "w2": 2})
    yield database
    database.close()
