"""Fixtures for all tests: a home with the demo model, shared or copied, and the check that modules have one name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from docmill.catalogue.local_model import Model
from docmill.catalogue.pull import pull
from docmill.producer.model_text import ModelText, load_model_text
from tests.homes import DEMO_MODEL, link_home, shared_home

# Every run tests the same examples, with no deadline for each. To search for more: --hypothesis-profile=default
settings.register_profile("docmill", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("docmill")

_ROOT = Path(__file__).parents[1]
_PRODUCT = tuple(_ROOT / name for name in ("src", "worker", "producer", "storage", "migrations"))


@pytest.fixture(scope="session", autouse=True)
def modules_have_one_name() -> Iterator[None]:
    """Fail at the end of the session (of each xdist worker) if a product file was imported without `docmill.`.

    Imported under a second name, the same file has a second copy of its classes and its state.
    """
    yield
    wrong = sorted(
        f"{module.__file__} as {name}"
        for name, module in list(sys.modules.items())
        if isinstance(getattr(module, "__file__", None), str)
        and any(Path(module.__file__).resolve().is_relative_to(directory) for directory in _PRODUCT)
        and name.partition(".")[0] not in ("docmill", "__main__")
    )
    assert not wrong, "modules must be imported as docmill.*: " + ", ".join(wrong)


@pytest.fixture(scope="session")
def home() -> Path:
    """A home with the demo model, kept between runs. Tests may write only caches into it."""
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
    """A new home for one test, with links to the demo model."""
    own = tmp_path / "home"
    link_home(home, own)
    return own
