"""`docmill config`."""

from __future__ import annotations

import click

from docmill.cli.context import CliContext, pass_context
from docmill.cli.display.output import new_table, print_json, print_table
from docmill.cli.options import json_option


@click.group(epilog="\b\nExample:\n  docmill config show")
def config() -> None:
    """The settings: options override DOCMILL_* variables, which override config.yaml and the defaults."""


@config.command(
    short_help="Print every setting and where it was set.",
    epilog="\b\nExamples:\n  docmill config show\n  docmill --config other.yaml config show --json",
)
@json_option
@pass_context
def show(context: CliContext, as_json: bool) -> None:
    """Print every setting, its value and where it was set. Passwords are masked."""
    from docmill.settings.load import effective

    rows = list(effective(context.settings))
    if as_json:
        print_json([{"key": key, "value": value, "source": source} for key, value, source in rows])
        return
    table = new_table("setting", "value", "set by")
    for key, value, source in rows:
        table.add_row(key, "" if value is None else str(value), source)
    print_table(table)
