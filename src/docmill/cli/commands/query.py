"""`docmill query`."""

from __future__ import annotations

import csv
import json
import sys
from datetime import date, datetime, time
from decimal import Decimal
from itertools import islice
from typing import Any, TextIO

import click

from docmill.cli.context import CliContext, pass_context
from docmill.cli.display.output import new_table, one_line, print_table
from docmill.cli.options import json_option
from docmill.storage.reads.read_only_sql import QueryResult, run_query

_MAX_CELL = 80  # characters of a table's cell


@click.command(
    epilog="""\b
Examples:
  docmill query "SELECT document, seconds FROM v_documents ORDER BY seconds DESC LIMIT 10"
  docmill query --csv --file slowest.sql > slowest.csv
  echo "SELECT * FROM v_workers" | docmill query - --json
"""
)
@click.argument("sql", required=False)
@click.option("--file", type=click.File(encoding="utf-8"), help="Read the statement from a file.")
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, with a header.")
@click.option(
    "--limit", type=click.IntRange(min=0), default=1000, show_default=True,
    help="Maximum number of rows in a table; 0 for all. CSV and JSON always have all.",
)  # fmt: skip
@click.option(
    "--timeout", metavar="SECONDS", type=click.FloatRange(min=0, min_open=True), help="Stop the query after this time."
)
@pass_context
def query(
    context: CliContext,
    sql: str | None,
    file: TextIO | None,
    as_json: bool,
    as_csv: bool,
    limit: int,
    timeout: float | None,
) -> None:
    """Query the database with one SQL statement, from the argument, a file, or standard input (-).

    Query the views v_jobs, v_attempts, v_documents, v_workers, v_samples and v_throughput; docs/sql.md describes
    them and has useful queries. Statements that write are rejected.
    """
    if (sql is None) == (file is None):
        raise click.UsageError("give one statement: as an argument, as - (standard input), or with --file")
    statement = file.read() if file is not None else sys.stdin.read() if sql == "-" else str(sql)
    with run_query(context.backend.database, statement, timeout_s=timeout) as answer:
        if as_json:
            _print_json(answer)
        elif as_csv:
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerow(answer.columns)
            writer.writerows([_plain(value) for value in row] for row in answer.rows)
        else:
            _print_table(answer, limit)


def _print_json(answer: QueryResult) -> None:
    """Print an array of objects, one row per line."""
    separator = "["
    for row in answer.rows:
        record = dict(zip(answer.columns, map(_plain, row), strict=True))
        click.echo(f"{separator}{json.dumps(record, ensure_ascii=False)}", nl=False)
        separator = ",\n "
    click.echo("]" if separator != "[" else "[]")


def _print_table(answer: QueryResult, limit: int) -> None:
    rows = list(islice(answer.rows, limit or None))
    numeric = [
        any(isinstance(row[at], (int, float, Decimal)) for row in rows) for at in range(len(answer.columns))
    ]  # fmt: skip
    from rich.text import Text

    table = new_table()
    for name, is_number in zip(answer.columns, numeric, strict=True):
        table.add_column(name, justify="right" if is_number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    print_table(table)
    if limit and next(answer.rows, None) is not None:
        click.echo(f"the first {limit:,} rows; --limit 0, --csv or --json for all", err=True)


def _cell(value: Any) -> str:
    value = _plain(value)
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return one_line(str(value), _MAX_CELL)


def _plain(value: Any) -> Any:
    """A value for JSON and CSV: bytes as hexadecimal, times as ISO 8601."""
    match value:
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case bytes() | memoryview():
            return bytes(value).hex()
        case datetime() | date() | time():
            return value.isoformat()
        case None | bool() | int() | float() | str() | dict() | list():
            return value
        case _:
            return str(value)
