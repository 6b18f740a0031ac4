"""`docmill flower`: Flower on docmill's broker."""

from __future__ import annotations

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
    if address not in ("127.0.0.1", "localhost", "::1") and not basic_auth:
        raise click.UsageError("an address beyond loopback needs --basic-auth USER:PASSWORD")
    app = make_app(service_broker_url(context.settings))
    arguments = ["flower", f"--address={address}", f"--port={port}", "--max_tasks=100000"]
    if basic_auth:
        arguments.append(f"--basic_auth={basic_auth}")
    app.start(arguments)
