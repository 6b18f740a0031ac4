"""`docmill pause` and `docmill resume`, for a batch or a worker."""

from __future__ import annotations

import click

from docmill.cli.context import CliContext, pass_context
from docmill.cli.options import optional_batch_argument
from docmill.storage.moves.workers import pause_worker, resume_worker

_worker_option = click.option(
    "--worker", metavar="NAME", help="Instead of a batch, the worker of this name (see `docmill status --watch`)."
)


@click.command(epilog="\b\nExamples:\n  docmill pause latest\n  docmill pause --worker gpubox/gpu0")
@optional_batch_argument
@_worker_option
@pass_context
def pause(context: CliContext, batch: str | None, worker: str | None) -> None:
    """Start no further jobs of a batch, or on a worker. Running jobs are finished.

    A paused worker keeps its model loaded. Pause a worker to drain it before you shut down its machine. The deadline
    of a paused batch still applies.
    """
    if worker := _worker(batch, worker):
        pause_worker(context.backend.database, worker)
        click.echo(f"{worker} takes no further jobs after its next heartbeat", err=True)
        return
    batch_id = context.backend.batches.find(str(batch)).id
    context.backend.batches.pause(batch_id)
    click.echo(f"{batch_id} is paused; `docmill resume {batch_id}` continues it", err=True)


@click.command(epilog="\b\nExample:\n  docmill resume latest")
@optional_batch_argument
@_worker_option
@pass_context
def resume(context: CliContext, batch: str | None, worker: str | None) -> None:
    """Continue a paused batch, or let a paused worker take jobs again."""
    if worker := _worker(batch, worker):
        resume_worker(context.backend.database, worker)
        click.echo(f"{worker} takes jobs again after its next heartbeat", err=True)
        return
    batch_id = context.backend.batches.find(str(batch)).id
    context.backend.batches.resume(batch_id)
    click.echo(f"{batch_id} continues", err=True)


def _worker(batch: str | None, worker: str | None) -> str | None:
    """The worker, if one was named instead of a batch. Raises UsageError for both or neither."""
    if (batch is None) == (worker is None):
        raise click.UsageError("name a batch, or a worker with --worker")
    return worker
