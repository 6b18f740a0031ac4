"""Fetch a catalogue model that is not here yet, with a progress bar."""

from __future__ import annotations

from catalogue.errors import ModelNotFound
from catalogue.pull import pull
from catalogue.resolve import find_model
from cli.context import CliContext
from cli.models import pull_with_progress


def ensure_model(context: CliContext, name: str) -> None:
    """Make sure the model's files are here; only catalogue models are fetched. Raises CatalogueError."""
