"""The integration tests' cluster of real services."""

from __future__ import annotations

from tests.integration.conftest import cluster, either_cluster, make_cluster

__all__ = ["cluster", "either_cluster", "make_cluster"]
