"""What many tests need: a home with the demo model, shared by the whole run; homes of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from docmill.catalogue.local_model import Model
from docmill.catalogue.pull import pull
from docmill.producer.model_text import ModelText, load_model_text
from tests.homes import DEMO_MODEL, link_home, shared_home

# The same examples in every run, and none too slow for a busy machine. To look for more: --hypothesis-profile=default
settings.register_profile("docmill", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("docmill")


@pytest.fixture(scope="session")
def home() -> Path:
    """A home with the demo model, kept between runs. Read it, write nothing but caches into it."""
    return shared_home()


@pytest.fixture(scope="session")
def demo_model(home: Path) -> Model:
    """The demo model's files."""
    return pull(DEMO_MODEL, home)


@pytest.fixture(scope="session")
def model_text(home: Path) -> ModelText:
    """The demo model's tokenizer and template."""
    return load_model_text(DEMO_MODEL, home)


@pytest.fixture
def own_home(home: Path, tmp_path: Path) -> Path:
    """A home of the test's own, with the demo model in it (by links)."""
    own = tmp_path / "home"
    link_home(home, own)
    return own
