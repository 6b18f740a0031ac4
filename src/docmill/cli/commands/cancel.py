"""`docmill cancel`."""

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
