"""`docmill health`: one look at what a service depends on, for health checks and scripts."""

from __future__ import annotations

import socket

import click

from docmill.broker.celery_app import make_app
from docmill.broker.publish import ping
from docmill.cli.context import CliContext, pass_context
from docmill.cli.services.connections import service_broker_url
from docmill.producer.composition import database_url
from docmill.storage.database import Database
from docmill.storage.reads.reports import Reports
from docmill.storage.schema import require_current


@click.command(epilog="\b\nExamples:\n  docmill health\n  docmill health --worker && echo fine")
@click.option("--worker", "wants_worker", is_flag=True, help="Also whether a worker of this host was seen of late.")
@pass_context
def health(context: CliContext, wants_worker: bool) -> None:  # noqa: FBT001
    """Whether database and broker answer; exit code 1 when not, with the reason.

    With --worker also whether a worker of this host gave a sign of life within the last minute.
    """
    ping(make_app(service_broker_url(context.settings, patience_s=0)))
    database = Database(database_url(context.settings))
    try:
        require_current(database)
        host = socket.gethostname()
        workers = [worker.name for worker in Reports(database).workers() if worker.name.startswith(f"{host}/")]
        if wants_worker and not workers:
            raise click.ClickException(f"no worker of {host} was seen within the last minute")
        click.echo(f"ok: broker, database{''.join(f', {name}' for name in workers)}")
    finally:
        database.close()
