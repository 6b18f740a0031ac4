"""`docmill flower`: Flower on docmill's broker."""

from __future__ import annotations

import ast
import ipaddress
import os
from pathlib import Path
from typing import Any

import click

from docmill.broker.celery_app import TASK_NAME, make_app
from docmill.cli.context import CliContext, pass_context
from docmill.cli.services.connections import service_broker_url

_COLUMNS = "name,uuid,state,kwargs,received,runtime,retries,worker"
_SAVE_MS = 60_000
_TASKS = 100_000


@click.command(
    epilog="""\b
Examples:
  docmill flower
  docmill flower --persistent --basic-auth me:secret --address 0.0.0.0
"""
)
@click.option("--address", default="127.0.0.1", show_default=True, help="Beyond loopback, --basic-auth is required.")
@click.option("--port", type=click.IntRange(1, 65535), default=5555, show_default=True, help="Where the pages are.")
@click.option(
    "--basic-auth", metavar="USER:PASSWORD", envvar="DOCMILL_FLOWER_BASIC_AUTH", show_envvar=True,
    help="Ask for these. A list of processes shows the option, but not the variable.",
)  # fmt: skip
@click.option("--persistent", is_flag=True, help="Keep the jobs over a restart.")
@click.option(
    "--db", type=click.Path(path_type=Path, dir_okay=False), help="The file of --persistent; flower.db in the home."
)
@pass_context
def flower(
    context: CliContext,
    address: str,
    port: int,
    basic_auth: str | None,
    persistent: bool,  # noqa: FBT001
    db: Path | None,
) -> None:
    """Show every job, worker and queue in the browser; Prometheus metrics under /metrics.

    The history is what Flower heard while it ran: the last 100,000 jobs, with --persistent those before a restart
    too (saved every minute and at the end). `docmill status` and SQL know all of them.
    """
    if not basic_auth and not _is_loopback(address):
        raise click.UsageError("an address beyond loopback needs --basic-auth USER:PASSWORD")
    if basic_auth and not _is_login(basic_auth):
        raise click.UsageError("--basic-auth is USER:PASSWORD, both not empty and without a comma")
    app = make_app(service_broker_url(context.settings))
    # By itself Flower runs the flowerconfig.py of the directory it is started in, which may be anybody's.
    arguments = [
        "flower", f"--conf={os.devnull}", f"--address={address}", f"--port={port}", f"--max_tasks={_TASKS}",
        f"--tasks_columns={_COLUMNS}",
    ]  # fmt: skip
    if basic_auth:
        arguments.append(f"--basic_auth={basic_auth}")
    if persistent or db is not None:
        path = (db or context.settings.home / "flower.db").absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        arguments += ["--persistent=true", f"--db={path}", f"--state_save_interval={_SAVE_MS}"]
    from flower.options import options

    options.format_task = readable
    app.start(arguments)


def readable(task: Any) -> Any:
    """A task of Celery's as the pages show it: a job is named by its document, level and place in it."""
    if task.name == TASK_NAME and task.kwargs:
        job = ast.literal_eval(task.kwargs)
        place = f"part {job['index'] + 1}" if job["level"] == 0 else f"merge {job['level']}.{job['index'] + 1}"
        task.name = f"{job['document']}, {place}"
        task.kwargs = f"batch {job['batch']}"
    return task


def _is_loopback(address: str) -> bool:
    try:
        return address == "localhost" or ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _is_login(text: str) -> bool:
    """Flower parts logins by commas, and takes what follows one as a login of its own."""
    user, _, password = text.partition(":")
    return bool(user and password) and "," not in text
