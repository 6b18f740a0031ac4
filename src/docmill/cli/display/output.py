"""What commands print on standard output: JSON for machines, tables for people."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
from rich.console import Console
from rich.table import Table

_PIPED_COLUMNS = 200


def print_json(value: Any) -> None:
    """One JSON document, indented where a person reads it."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None))


def print_table(table: Table) -> None:
    """A table; in a pipe wide enough that nothing is cut off."""
    stdout_console().print(table)


def stdout_console() -> Console:
    """Standard output as rich writes it, without markup: a document may be called `[/x].txt`."""
    width = None if sys.stdout.isatty() else _PIPED_COLUMNS
    return Console(soft_wrap=False, width=width, highlight=False, markup=False)
