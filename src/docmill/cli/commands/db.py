"""`docmill db`: the database's schema."""

from __future__ import annotations

import click

from docmill.cli.context import CliContext, pass_context
from docmill.cli.display.output import print_json
from docmill.cli.options import json_option
from docmill.producer.composition import database_url
from docmill.storage import hosts, schema
from docmill.storage.database import Database


@click.group(epilog="\b\nExample:\n  docmill db upgrade")
def db() -> None:
    """Create or migrate the database. `run` and `up` do this for the SQLite database in the home directory."""


@db.command(
    short_help="Create the tables, or migrate them.",
    epilog="\b\nExample:\n  DOCMILL_STORAGE__URL=postgresql://db/docmill docmill db upgrade",
)
@pass_context
def upgrade(context: CliContext) -> None:
    """Create the tables, or migrate them. Safe to repeat, and to run from several machines at once."""
    database = Database(database_url(context.settings))
    click.echo(f"{database} is at {schema.upgrade(database)}")


@db.command(
    short_help="Make this host the owner of a moved SQLite file.",
    epilog="\b\nExample:\n  docmill --home /mnt/moved db adopt",
)
@pass_context
def adopt(context: CliContext) -> None:
    """Make this host the owner of the SQLite database after its file was moved here.

    Stop all docmill processes on other hosts that use it first: SQLite's locks do not work across hosts.
    """
    database = Database(database_url(context.settings))
    if not database.is_sqlite:
        raise click.UsageError(f"{database} can be used from several hosts: there is nothing to adopt")
    hosts.adopt(database)
    click.echo(f"{database} belongs to this host now")


@db.command(short_help="Show whether the schema is current.", epilog="\b\nExample:\n  docmill db current --json")
@json_option
@pass_context
def current(context: CliContext, as_json: bool) -> None:
    """Show the database's schema revision and the one that this version needs. Exit code 1 if they differ."""
    database = Database(database_url(context.settings))
    found, needed = schema.current(database), schema.head()
    if as_json:
        print_json({"database": str(database), "current": found, "needed": needed})
    else:
        state = "up to date" if found == needed else "run `docmill db upgrade`"
        click.echo(f"{database} is at {found or 'no schema'}; this docmill needs {needed}: {state}")
    if found != needed:
        context.exit(1)
