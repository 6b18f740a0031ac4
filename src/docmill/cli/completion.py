"""Shell completion of batch ids, tasks and models.

Each function is called by the shell while the user types: it imports only what it needs, creates nothing, and
answers with nothing if anything goes wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps

import click
from click.shell_completion import CompletionItem

from docmill.cli.context import CliContext

_MAX_BATCHES = 50

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _completer(candidates: Callable[[CliContext], Iterator[tuple[str, str]]]) -> Completer:
    """Turn a function that yields (value, description) into one that Click calls."""

    @wraps(candidates)
    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        options = ctx.find_root().params
        context = CliContext(config=options.get("config"), profile=None, home=options.get("home"))
        try:
            found = list(candidates(context))
        except Exception:  # noqa: BLE001 - a completion must never print an error
            return []
        return [CompletionItem(value, help=text) for value, text in found if value.startswith(incomplete)]

    return complete


@_completer
def complete_batches(context: CliContext) -> Iterator[tuple[str, str]]:
    """`latest` and the newest batches, with their states."""
    from docmill.storage.reads.batch_ids import newest_batches

    yield "latest", "the newest batch"
    yield from newest_batches(context.settings.storage.url or context.settings.home / "docmill.db", _MAX_BATCHES)


@_completer
def complete_tasks(context: CliContext) -> Iterator[tuple[str, str]]:
    """The built-in tasks."""
    from docmill.producer.task_files import builtin_names

    yield from ((name, "built-in task") for name in builtin_names())


@_completer
def complete_models(context: CliContext) -> Iterator[tuple[str, str]]:
    """The models of the catalogue and those that were pulled."""
    from docmill.catalogue.find_model import models_directory
    from docmill.catalogue.known_models import ENTRIES

    pulled = {path.name.replace("--", "/") for path in models_directory(context.settings.home).glob("*/")}
    for entry in ENTRIES:
        yield entry.name, f"{entry.parameters}, {'on this machine' if entry.name in pulled else 'not downloaded'}"
    yield from ((name, "on this machine") for name in sorted(pulled - {entry.name for entry in ENTRIES}))
