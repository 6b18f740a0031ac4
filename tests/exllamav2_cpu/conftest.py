"""A process with the stand-in, and a tiny model for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from docmill.catalogue.local_model import Model
from tests.exllamav2_cpu.child import Child
from tests.exllamav2_cpu.installed import require_exllamav2
from tests.exllamav2_cpu.models import tiny_model


@pytest.fixture(scope="session", autouse=True)
def installed() -> None:
    """Everything here is skipped where the real package is not installed."""
    require_exllamav2()


@pytest.fixture(scope="session")
def child() -> Iterator[Child]:
    """One process for all tests that need nothing special of it: starting one takes seconds."""
    child = Child()
    yield child
    child.close()


@pytest.fixture(scope="session")
def llama(demo_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama's directory."""
    return tiny_model(tmp_path_factory.mktemp("llama"), demo_model.path)
