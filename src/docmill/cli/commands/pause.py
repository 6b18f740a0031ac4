"""`docmill pause` and `docmill resume`: of a batch, or of a worker."""

from __future__ import annotations

import click

from docmill.cli.context import CliContext, pass_context
from docmill.producer.composition import Backend
from docmill.storage.moves.workers import pause_worker, resume_worker

_worker_option = click.option("--worker", metavar="NAME", help="A worker (as `docmill status` names it), not a batch.")


@click.command(
    epilog="""\b
Examples:
  docmill pause latest
  docmill pause --worker gpubox/gpu0
"""
)
@click.argument("batch", required=False)
@_worker_option
@pass_context
def pause(context: CliContext, batch: str | None, worker: str | None) -> None:
    """Start no further jobs of a batch, or on a worker; what runs is finished.

    A paused worker keeps its model loaded: it is drained before its box is taken down. A batch's deadline stands.
    """
    backend = Backend(context.settings)
    if _is_worker(batch, worker):
        pause_worker(backend.database, str(worker))
        click.echo(f"{worker} takes no further jobs from its next heartbeat on", err=True)
        return
    batch_id = backend.batches.find(str(batch)).id
    backend.batches.pause(batch_id)
    click.echo(f"{batch_id} is paused; `docmill resume {batch_id}` goes on", err=True)


@click.command(epilog="\b\nExample:\n  docmill resume latest")
@click.argument("batch", required=False)
@_worker_option
@pass_context
def resume(context: CliContext, batch: str | None, worker: str | None) -> None:
    """Go on with a paused batch, or let a paused worker take jobs again."""
    backend = Backend(context.settings)
    if _is_worker(batch, worker):
        resume_worker(backend.database, str(worker))
        click.echo(f"{worker} takes jobs again from its next heartbeat on", err=True)
        return
    batch_id = backend.batches.find(str(batch)).id
    backend.batches.resume(batch_id)
    click.echo(f"{batch_id} goes on", err=True)


def _is_worker(batch: str | None, worker: str | None) -> bool:
    if (batch is None) == (worker is None):
        raise click.UsageError("name a batch, or a worker with --worker")
    return worker is not None
