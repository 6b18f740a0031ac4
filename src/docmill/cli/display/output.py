"""What commands print on standard output: JSON for programs, tables for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_PIPED_COLUMNS = 200


def print_json(value: Any) -> None:
    """One JSON document, indented on a terminal."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None))


def new_table(*left: str, right: Sequence[str] = (), **options: Any) -> Table:
    """A table without borders: left-aligned columns with these headings, then right-aligned ones."""
    from rich.table import Table

    table = Table(*left, box=None, pad_edge=False, **options)
    for heading in right:
        table.add_column(heading, justify="right")
    return table


def print_table(table: Table) -> None:
    """Print a table; wide enough in a pipe that nothing is cut off."""
    stdout_console().print(table)


def print_pairs(pairs: Sequence[tuple[str, str]], width: int) -> None:
    """Print names and values in two columns, the first `width` characters wide."""
    for name, value in pairs:
        click.echo(f"{name:{width}} {value}")


def one_line(text: str, length: int) -> str:
    """`text` in one line of at most `length` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def stdout_console() -> Console:
    """A rich console on standard output, without markup: a document may be called `[/x].txt`."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else _PIPED_COLUMNS
    return Console(soft_wrap=False, width=width, highlight=False, markup=False)
