"""`docmill up`: the one-machine stack in the foreground."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import click

from docmill.cli.context import CliContext, pass_context
from docmill.cli.model_download import ensure_model
from docmill.cli.options import engine_option, slots_option
from docmill.cli.services.signals import stop_event
from docmill.cli.services.stack import Stack
from docmill.producer.composition import Backend
from docmill.storage.errors import DatabaseUnavailable
from docmill.storage.reads.reports import WorkerStatus


@click.command(epilog="\b\nExample:\n  docmill up --flower &\n  docmill submit reports/")
@click.option("--model", help="Serve this model instead of the profile's.")
@engine_option
@slots_option
@click.option("--flower", "with_flower", is_flag=True, help="Show the jobs in Flower on http://127.0.0.1:5555.")
@pass_context
def up(
    context: CliContext,
    model: str | None,
    engine: str | None,
    slots: int | None,
    with_flower: bool,  # noqa: FBT001
) -> None:
    """Run broker, dispatcher and worker until Ctrl-C, for `docmill submit` and the rest from another terminal."""
    settings = context.settings
    name = model or settings.profile(context.profile).model
    ensure_model(context, name)
    options = ["--model", name]
    options += ["--engine", engine] if engine else []
    options += ["--slots", str(slots)] if slots else []
    stop = stop_event()
    with Stack(settings, context.global_options, options) as stack:
        backend = Backend(settings)
        if with_flower:
            stack.add("flower", ["flower"])
            click.echo("Flower: http://127.0.0.1:5555", err=True)
        click.echo(f"up: database {backend.database}, logs {stack.logs}; Ctrl-C stops", err=True)
        said = False
        while not stop.wait(0.5):
            stack.check()
            if not said and (workers := _workers(backend)):
                click.echo(f"worker {workers[0].name} serves {workers[0].model} on {workers[0].engine}", err=True)
                said = True
    click.echo("stopped; queued jobs wait for the next `docmill up`", err=True)


def _workers(backend: Backend) -> Sequence[WorkerStatus]:
    with suppress(DatabaseUnavailable):  # the services wait for it and say so
        return backend.reports.workers()
    return ()
