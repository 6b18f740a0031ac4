"""`docmill export`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from docmill.cli.context import CliContext, pass_context
from docmill.cli.options import batch_argument
from docmill.formatting import counted

if TYPE_CHECKING:
    from docmill.storage.views import Rows

_FORMATS = ("jsonl", "csv", "parquet")


@click.command(
    epilog="""\b
Examples:
  docmill export latest --format parquet --out batch.parquet
  docmill export 261124-k7q2mx --what attempts --out attempts.csv
  docmill export latest --what jobs | jq -r .text
"""
)
@batch_argument
@click.option(
    "--format", "form", type=click.Choice(_FORMATS), help="By default from the file's suffix; otherwise jsonl."
)
@click.option(
    "--what", type=click.Choice(["documents", "jobs", "attempts"]), default="documents", show_default=True,
    help="What a row describes.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="A file; by default standard output.")
@pass_context
def export(context: CliContext, batch: str, form: str | None, what: str, out: Path | None) -> None:
    """Write a batch of any size with its metrics, for other programs.

    The columns are those of the views v_documents, v_jobs and v_attempts (docs/sql.md). A batch that is still running
    is exported in its current state.
    """
    from docmill.producer import row_export
    from docmill.storage import views

    suffix = out.suffix.lstrip(".") if out else ""
    form = form or (suffix if suffix in _FORMATS else "jsonl")
    if form == "parquet" and out is None:
        raise click.UsageError("Parquet is written to a file: give --out FILE")
    read = {"documents": views.documents_of, "jobs": views.jobs_of, "attempts": views.attempts_of}[what]
    rows = read(context.backend.database, context.backend.batches.find(batch).id)
    writers: dict[str, Callable[[Rows, Any], int]] = {
        "jsonl": row_export.write_jsonl, "csv": row_export.write_csv, "parquet": row_export.write_parquet,
    }  # fmt: skip
    if out is None:
        writers[form](rows, sys.stdout)
        return
    is_binary = form == "parquet"
    encoding = None if is_binary else "utf-8"
    with click.open_file(str(out), "wb" if is_binary else "w", encoding=encoding, atomic=True) as file:
        written = writers[form](rows, file)
    click.echo(f"{counted(written, what.removesuffix('s'))} in {out}", err=True)
