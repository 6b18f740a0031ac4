"""`docmill cancel`."""

from __future__ import annotations

import click

from docmill.cli.context import CliContext, pass_context
from docmill.cli.display.output import print_json
from docmill.cli.options import json_option
from docmill.formatting import counted
from docmill.producer.composition import Backend


@click.command(epilog="\b\nExample:\n  docmill cancel 261124-k7q2mx")
@click.argument("batch")
@json_option
@pass_context
def cancel(context: CliContext, batch: str, as_json: bool) -> None:  # noqa: FBT001
    """Stop a batch: queued jobs at once, running ones within a heartbeat; what is finished stays."""
    backend = Backend(context.settings)
    batch_id = backend.batches.find(batch).id
    cancelled = backend.batches.cancel(batch_id)
    if as_json:
        print_json({"batch": batch_id, "cancelled_jobs": cancelled})
    else:
        click.echo(f"{counted(cancelled, 'job')} of {batch_id} cancelled")
