"""Upgrade a database's schema with Alembic, and check that it is current."""

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

_POSTGRES_LOCK = 0x646F636D  # "docm": simultaneous upgrades wait for each other


def head() -> str:
    """The schema revision that this version of docmill needs."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None  # noqa: S101 - the package ships its migrations
    return revision


def current(database: Database) -> str | None:
    """The schema revision of the database; None if it has no docmill schema."""
    with database.read() as session:
        return MigrationContext.configure(session.connection()).get_current_revision()


def upgrade(database: Database) -> str:
    """Upgrade the database to `head()` and return that revision. Several processes may call this at the same time."""
    if database.is_sqlite:
        with FileLock(f"{database.url.database}.migrating"), database.write() as session:
            _run(session.connection())
    else:
        with database.write() as session:
            session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _POSTGRES_LOCK})
            _run(session.connection())
    return head()


def require_current(database: Database) -> None:
    """Raise SchemaOutdated unless the database is at `head()`, and OtherHost for another host's SQLite database."""
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
