"""A client on a migrated database, with the demo model, without a broker."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from docmill import Client, load_settings
from docmill.producer.model_text import ModelText
from docmill.storage.database import Database
from tests.homes import DEMO_MODEL
from tests.unit.producer.conftest import empty_database
from tests.unit.producer.store import Store

__all__ = ["empty_database"]


@pytest.fixture
def client(empty_database: Path, own_home: Path) -> Iterator[Client]:
    shutil.copy(empty_database, own_home / "docmill.db")
    environment = {"DOCMILL_HOME": str(own_home), "DOCMILL_LLM__MODEL": DEMO_MODEL}
    with Client(load_settings(environment=environment)) as client:
        yield client


@pytest.fixture
def store(client: Client, model_text: ModelText, own_home: Path) -> Iterator[Store]:
    """Runs the client's jobs in place of workers and a dispatcher."""
    database = Database(f"sqlite:///{own_home}/docmill.db")
    yield Store(database, model_text, own_home)
    database.close()
