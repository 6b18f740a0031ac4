from __future__ import annotations

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect

from docmill.storage.database import Database
from docmill.storage.errors import SchemaOutdated
from docmill.storage.schema import _config, current, head, require_current, upgrade
from docmill.storage.tables import Base


def test_upgrade_makes_the_tables_of_the_models_and_nothing_else(database_url: str) -> None:
    database = Database(database_url)
    assert current(database) is None
    assert upgrade(database) == head() == current(database)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_upgrade_twice_changes_nothing(database_url: str) -> None:
    database = Database(database_url)
    upgrade(database)
    assert upgrade(database) == head()


def test_downgrade_to_nothing_leaves_no_table(database_url: str) -> None:
    database = Database(database_url)
    upgrade(database)
    config = _config()
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert set(inspect(database.engine).get_table_names()) <= {"alembic_version"}
    assert upgrade(database) == head()


def test_services_refuse_a_database_without_schema_and_name_the_command(database_url: str) -> None:
    database = Database(database_url)
    with pytest.raises(SchemaOutdated, match="docmill db upgrade"):
        require_current(database)
