"""Homes with the demo model: one that all runs share, and each test's own, which links to it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from docmill.catalogue.pull import pull
from docmill.producer.model_text import load_model_text

DEMO_MODEL = "smollm2-135m-instruct"
_UNFINISHED = ("*.lock", ".pulling*", "*.part")  # another process is at work on them


def shared_home() -> Path:
    """The home that is kept between runs, with the model and its tokenizer in it. Write nothing but caches into it."""
    configured = os.environ.get("DOCMILL_TEST_HOME")
    place = Path(configured) if configured else Path(__file__).parent.parent / ".venv" / "docmill-test-home"
    pull(DEMO_MODEL, place)
    load_model_text(DEMO_MODEL, place)
    return place


def link_home(shared: Path, own: Path) -> None:
    """Make a home of its own with what the shared one holds, and nothing else that another run may have left there."""
    for part in ("models", "cache"):
        ignored = shutil.ignore_patterns(*_UNFINISHED)
        shutil.copytree(shared / part, own / part, copy_function=os.link, ignore=ignored)
