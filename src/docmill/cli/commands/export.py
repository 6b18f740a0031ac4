"""`docmill export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, Any, TextIO, cast

import click

from docmill.cli.context import CliContext, pass_context
from docmill.formatting import counted
from docmill.producer.composition import Backend
from docmill.producer.row_export import write_csv, write_jsonl, write_parquet
from docmill.storage.views import Rows, attempts_of, documents_of, jobs_of

_FORMATS = ("jsonl", "csv", "parquet")
_WHAT = {"documents": documents_of, "jobs": jobs_of, "attempts": attempts_of}


@click.command(
    epilog="""\b
Examples:
  docmill export latest --format parquet --out batch.parquet
  docmill export 261124-k7q2mx --what attempts --out attempts.csv
  docmill export latest --what jobs | jq -r .text
"""
)
@click.argument("batch")
@click.option(
    "--format", "form", type=click.Choice(_FORMATS), help="By the file's suffix where it is not given, or jsonl."
)
@click.option(
    "--what", type=click.Choice(list(_WHAT)), default="documents", show_default=True, help="What a row is of."
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="A file; standard output otherwise.")
@pass_context
def export(context: CliContext, batch: str, form: str | None, what: str, out: Path | None) -> None:
    """Write a batch with its metrics for other programs, however large it is.

    The columns are those of the views v_documents, v_jobs and v_attempts (docs/sql.md). What is written while a batch
    is at work is its state then.
    """
    backend = Backend(context.settings)
    suffix = out.suffix.lstrip(".") if out else ""
    form = form or (suffix if suffix in _FORMATS else "jsonl")
    if form == "parquet" and out is None:
        raise click.UsageError("Parquet is written to a file: give --out FILE")
    rows = _WHAT[what](backend.database, backend.batches.find(batch).id)
    if out is None:
        _write(form, rows, sys.stdout)
        return
    is_binary = form == "parquet"
    encoding = None if is_binary else "utf-8"
    with click.open_file(str(out), "wb" if is_binary else "w", encoding=encoding, atomic=True) as file:
        written = _write(form, rows, file)
    click.echo(f"{counted(written, what.removesuffix('s'))} in {out}", err=True)


def _write(form: str, rows: Rows, out: IO[Any]) -> int:
    match form:
        case "csv":
            return write_csv(rows, cast(TextIO, out))
        case "parquet":
            return write_parquet(rows, out)
        case _:
            return write_jsonl(rows, cast(TextIO, out))
