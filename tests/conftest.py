"""What many tests need: a home with the demo model, shared by the whole run; homes of their own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from catalogue.model import Model
from catalogue.pull import pull
from producer.model_text import ModelText, load_model_text

DEMO_MODEL = "smollm2-135m-instruct"

# The same examples in every run, and none too slow for a busy machine. To look for more: --hypothesis-profile=default
settings.register_profile("docmill", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("docmill")


@pytest.fixture(scope="session")
def home() -> Path:
    """A home with the demo model, kept between runs. Read it, write nothing but caches into it."""
    configured = os.environ.get("DOCMILL_TEST_HOME")
    place = Path(configured) if configured else Path(__file__).parent.parent / ".venv" / "docmill-test-home"
    pull(DEMO_MODEL, place)
    return place


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
    unfinished = shutil.ignore_patterns("*.lock", ".pulling*")
    for part in ("models", "cache"):
        if (home / part).is_dir():
            shutil.copytree(home / part, own / part, copy_function=os.link, ignore=unfinished)
    return own
