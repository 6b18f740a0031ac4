"""`docmill up`: the services of one machine in the foreground."""

from __future__ import annotations

from contextlib import suppress

import click

from docmill.cli.context import CliContext, pass_context
from docmill.cli.options import engine_option, model_option, slots_option
from docmill.storage.errors import DatabaseUnavailable


@click.command(epilog="\b\nExample:\n  docmill up --flower &\n  docmill submit reports/")
@model_option
@engine_option
@slots_option
@click.option("--flower", "with_flower", is_flag=True, help="Also start Flower, on http://127.0.0.1:5555.")
@pass_context
def up(context: CliContext, model: str | None, engine: str | None, slots: int | None, with_flower: bool) -> None:
    """Run broker, dispatcher and worker until Ctrl-C; use `docmill submit` and the rest from another terminal."""
    from docmill.cli.model_download import ensure_model
    from docmill.cli.services.signals import stop_event
    from docmill.cli.services.stack import Stack

    name = ensure_model(context, model)
    stop = stop_event()
    with Stack(context.settings, context.global_options, model=name, engine=engine, slots=slots) as stack:
        if with_flower:
            stack.add("flower", ["flower"])
            click.echo("Flower: http://127.0.0.1:5555", err=True)
        click.echo(f"up: database {context.backend.database}, logs {stack.logs}; Ctrl-C stops", err=True)
        worker = None
        while not stop.wait(0.5):
            stack.check()
            if worker is None and (worker := _first_worker(context)):
                click.echo(worker, err=True)
    click.echo("stopped; queued jobs wait for the next `docmill up`", err=True)


def _first_worker(context: CliContext) -> str | None:
    with suppress(DatabaseUnavailable):  # the services wait for it, and log it
        for worker in context.backend.reports.workers():
            return f"worker {worker.name} serves {worker.model} on {worker.engine}"
    return None
