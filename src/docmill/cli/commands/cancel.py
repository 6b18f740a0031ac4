"""`docmill cancel` and `docmill retry`: end the jobs of a batch, or queue the failed ones again."""

from __future__ import annotations

import click

from docmill.cli.context import CliContext, pass_context
from docmill.cli.display.output import print_json
from docmill.cli.options import batch_argument, json_option
from docmill.formatting import counted


@click.command(epilog="\b\nExample:\n  docmill cancel 261124-k7q2mx")
@batch_argument
@json_option
@pass_context
def cancel(context: CliContext, batch: str, as_json: bool) -> None:
    """Stop a batch: queued jobs at once, running ones within a heartbeat. Finished results are kept."""
    batches = context.backend.batches
    batch_id = batches.find(batch).id
    cancelled = batches.cancel(batch_id)
    if as_json:
        print_json({"batch": batch_id, "cancelled_jobs": cancelled})
    else:
        click.echo(f"{counted(cancelled, 'job')} of {batch_id} cancelled")


@click.command(epilog="\b\nExample:\n  docmill retry 261124-k7q2mx")
@batch_argument
@json_option
@pass_context
def retry(context: CliContext, batch: str, as_json: bool) -> None:
    """Queue a batch's failed jobs again, each with a new set of attempts. Nothing else is repeated."""
    batches = context.backend.batches
    batch_id = batches.find(batch).id
    queued = batches.retry_failed(batch_id)
    if as_json:
        print_json({"batch": batch_id, "retried_jobs": queued})
    else:
        click.echo(f"{counted(queued, 'job')} of {batch_id} queued again")
