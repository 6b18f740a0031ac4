"""Bring a database's tables to this version by Alembic, and refuse to work on others."""

from __future__ import annotations

from importlib.resources import files

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from filelock import FileLock
from sqlalchemy import Connection, text

from docmill.storage.database import Database
from docmill.storage.errors import SchemaOutdated
from docmill.storage.hosts import require_this_host

_POSTGRES_LOCK = 0x646F636D  # "docm": two upgrades at once wait for each other


def head() -> str:
    """The schema revision this version of docmill was written for."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None  # noqa: S101 - the package ships its migrations
    return revision


def current(database: Database) -> str | None:
    """The revision the database is at, None when it has no docmill schema."""
    with database.read() as session:
        return MigrationContext.configure(session.connection()).get_current_revision()


def upgrade(database: Database) -> str:
    """Bring the database to `head()` and return it. Any number of processes may call this at once."""
    if database.is_sqlite:
        with FileLock(f"{database.url.database}.migrating"), database.write() as session:
            _run(session.connection())
    else:
        with database.write() as session:
            session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _POSTGRES_LOCK})
            _run(session.connection())
    return head()


def require_current(database: Database) -> None:
    """Raise SchemaOutdated unless the database is at `head()`, OtherHost when it is another host's SQLite."""
    found = current(database)
    if found != head():
        raise SchemaOutdated(str(database), found, head())
    require_this_host(database)


def _run(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("docmill.migrations")))
    return config
