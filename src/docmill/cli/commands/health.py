"""`docmill health`."""

from __future__ import annotations

import socket

import click

from docmill.cli.context import CliContext, pass_context


@click.command(epilog="\b\nExamples:\n  docmill health\n  docmill health --worker && echo fine")
@click.option("--worker", "wants_worker", is_flag=True, help="Also require a worker of this host.")
@pass_context
def health(context: CliContext, wants_worker: bool) -> None:
    """Check that database and broker answer. Exit code 1 if not, with the reason.

    With --worker, also checks that a worker of this host sent a heartbeat within the last minute.
    """
    from docmill.broker.publish import ping
    from docmill.cli.services.connections import broker_app

    ping(broker_app(context.settings, timeout_s=0))
    host = socket.gethostname()
    workers = [worker.name for worker in context.backend.reports.workers() if worker.name.startswith(f"{host}/")]
    if wants_worker and not workers:
        raise click.ClickException(f"no worker of {host} was seen within the last minute")
    click.echo(f"ok: broker, database{''.join(f', {name}' for name in workers)}")
