"""`docmill flower`: Celery's web interface on docmill's broker."""

from __future__ import annotations

import ast
import ipaddress
import os
from pathlib import Path
from typing import Any

import click

from docmill.broker.celery_app import TASK_NAME
from docmill.cli.context import CliContext, pass_context

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
@click.option(
    "--address",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; other than loopback it requires --basic-auth.",
)
@click.option("--port", type=click.IntRange(1, 65535), default=5555, show_default=True, help="Port to listen on.")
@click.option(
    "--basic-auth", metavar="USER:PASSWORD", envvar="DOCMILL_FLOWER_BASIC_AUTH", show_envvar=True,
    help="Require this login. Other users of the machine can see the option in the process list, but not the variable.",
)  # fmt: skip
@click.option("--persistent", is_flag=True, help="Keep the history across restarts.")
@click.option(
    "--db", type=click.Path(path_type=Path, dir_okay=False), help="File for --persistent; by default HOME/flower.db."
)
@pass_context
def flower(
    context: CliContext,
    address: str,
    port: int,
    basic_auth: str | None,
    persistent: bool,
    db: Path | None,
) -> None:
    """Show jobs, workers and queues in the browser; Prometheus metrics are under /metrics.

    The history contains the last 100,000 jobs that ran while Flower was running; --persistent keeps it across restarts
    (saved every minute and at the end). `docmill status` and SQL know all jobs.
    """
    from flower.options import options

    from docmill.cli.services.connections import broker_app

    if not basic_auth and not _is_loopback(address):
        raise click.UsageError("an address other than loopback needs --basic-auth USER:PASSWORD")
    if basic_auth and not _is_login(basic_auth):
        raise click.UsageError("--basic-auth must be USER:PASSWORD, both not empty and without a comma")
    app = broker_app(context.settings)
    arguments = [
        "flower",
        f"--conf={os.devnull}",  # by default Flower runs flowerconfig.py of the current directory
        f"--address={address}",
        f"--port={port}",
        f"--max_tasks={_TASKS}",
        f"--tasks_columns={_COLUMNS}",
    ]
    if basic_auth:
        arguments.append(f"--basic_auth={basic_auth}")
    if persistent or db is not None:
        path = (db or context.settings.home / "flower.db").absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        arguments += ["--persistent=true", f"--db={path}", f"--state_save_interval={_SAVE_MS}"]
    options.format_task = readable
    app.start(arguments)


def readable(task: Any) -> Any:
    """A Celery task as Flower shows it: a job is named by its document, its level and its position."""
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
    """Is this a single login? Flower takes what follows a comma as another one."""
    user, _, password = text.partition(":")
    return bool(user and password) and "," not in text
