"""`docmill flower`: Flower on docmill's broker."""

from __future__ import annotations

import ipaddress
import os

import click

from broker.app import make_app
from cli.context import CliContext, pass_context
from cli.services import service_broker_url


@click.command(epilog="\b\nExample:\n  docmill flower --port 5555")
@click.option("--address", default="127.0.0.1", show_default=True, help="Beyond loopback, --basic-auth is required.")
@click.option("--port", type=click.IntRange(1, 65535), default=5555, show_default=True, help="Where the pages are.")
@click.option(
    "--basic-auth", metavar="USER:PASSWORD", envvar="DOCMILL_FLOWER_BASIC_AUTH", show_envvar=True,
    help="Ask for these. A list of processes shows the option, but not the variable.",
)  # fmt: skip
@pass_context
def flower(context: CliContext, address: str, port: int, basic_auth: str | None) -> None:
    """Show every job, worker and queue in the browser."""
    if not basic_auth and not _is_loopback(address):
        raise click.UsageError("an address beyond loopback needs --basic-auth USER:PASSWORD")
    if basic_auth and not _is_login(basic_auth):
        raise click.UsageError("--basic-auth is USER:PASSWORD, both not empty and without a comma")
    app = make_app(service_broker_url(context.settings))
    # By itself Flower runs the flowerconfig.py of the directory it is started in, which may be anybody's.
    arguments = ["flower", f"--conf={os.devnull}", f"--address={address}", f"--port={port}", "--max_tasks=100000"]
    if basic_auth:
        arguments.append(f"--basic_auth={basic_auth}")
    app.start(arguments)


def _is_loopback(address: str) -> bool:
    try:
        return address == "localhost" or ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _is_login(text: str) -> bool:
    """Flower parts logins by commas, and takes what follows one as a login of its own."""
    user, _, password = text.partition(":")
    return bool(user and password) and "," not in text
