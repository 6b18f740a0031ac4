"""`docmill retry`."""

from __future__ import annotations

import click

from docmill.cli.context import CliContext, pass_context
from docmill.cli.display.output import print_json
from docmill.cli.options import json_option
from docmill.formatting import counted
from docmill.producer.composition import Backend


@click.command(epilog="\b\nExample:\n  docmill retry 261124-k7q2mx")
@click.argument("batch")
@json_option
@pass_context
def retry(context: CliContext, batch: str, as_json: bool) -> None:  # noqa: FBT001
    """Queue a batch's failed jobs again, with all their attempts; nothing else is redone."""
    backend = Backend(context.settings)
    batch_id = backend.batches.find(batch).id
    queued = backend.batches.retry_failed(batch_id)
    if as_json:
        print_json({"batch": batch_id, "retried_jobs": queued})
    else:
        click.echo(f"{counted(queued, 'job')} of {batch_id} queued again")
