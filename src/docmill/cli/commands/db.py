"""`docmill db`: the schema of the database, by Alembic."""

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
    """Bring the database to this version's schema. `run` and `up` do this for their own."""


@db.command(
    short_help="Create the tables, or migrate them.",
    epilog="\b\nExample:\n  DOCMILL_STORAGE__URL=postgresql://db/docmill docmill db upgrade",
)
@pass_context
def upgrade(context: CliContext) -> None:
    """Create the tables, or migrate them; safe to call again, and from many machines at once."""
    database = Database(database_url(context.settings))
    click.echo(f"{database} is at {schema.upgrade(database)}")


@db.command(
    short_help="Make this host a moved SQLite file's own.",
    epilog="\b\nExample:\n  docmill --home /mnt/moved db adopt",
)
@pass_context
def adopt(context: CliContext) -> None:
    """Make this host the one that the SQLite database belongs to, after its file was moved here.

    No process of another host may work on it then: SQLite's locks do not reach from one host to another.
    """
    database = Database(database_url(context.settings))
    if not database.is_sqlite:
        raise click.UsageError(f"{database} can be shared by hosts: there is nothing to adopt")
    hosts.adopt(database)
    click.echo(f"{database} belongs to this host now")


@db.command(short_help="Show whether it is at this version's.", epilog="\b\nExample:\n  docmill db current --json")
@json_option
@pass_context
def current(context: CliContext, as_json: bool) -> None:  # noqa: FBT001
    """Show the database's schema revision and the one this version needs; exit code 1 when they differ."""
    database = Database(database_url(context.settings))
    found, needed = schema.current(database), schema.head()
    if as_json:
        print_json({"database": str(database), "current": found, "needed": needed})
    else:
        state = "up to date" if found == needed else "run `docmill db upgrade`"
        click.echo(f"{database} is at {found or 'no schema'}; this docmill needs {needed}: {state}")
    if found != needed:
        context.exit(1)
