"""The real services of `tests.integration` and storage's hands of `tests.unit.storage`, for the tests in here."""

from __future__ import annotations

from tests.integration.conftest import cluster, either_cluster, make_cluster
from tests.unit.storage.conftest import (
    database,
    fast_path,
    migrated_url,
    mill,
    postgres_database,
    postgres_mill,
    sqlite_template,
)

__all__ = [
    "cluster",
    "database",
    "either_cluster",
    "fast_path",
    "make_cluster",
    "migrated_url",
    "mill",
    "postgres_database",
    "postgres_mill",
    "sqlite_template",
]
