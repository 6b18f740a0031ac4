"""`docmill results`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO, cast

import click

from cli.context import CliContext, pass_context
from cli.output import counted
from producer.client import Client
from producer.export import write_csv, write_directory, write_jsonl, write_markdown
from storage.document_reports import DocumentReport

_FORMS = ("md", "jsonl", "csv")


@click.command(
    epilog="""\b
Examples:
  docmill results latest
  docmill results 261124-k7q2mx --format jsonl | jq -r .summary
  docmill results 261124-k7q2mx --out summaries/
"""
)
@click.argument("batch")
@click.option(
    "--format", "form", type=click.Choice(_FORMS), default="md", show_default=True, help="How they are printed."
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format jsonl.")
@click.option("--out", type=click.Path(path_type=Path), help="A file; or a directory, for one file a document.")
@pass_context
def results(context: CliContext, batch: str, form: str, as_json: bool, out: Path | None) -> None:  # noqa: FBT001
    """Print a batch's results in input order: finished documents now, the others by their state."""
    client = Client(context.settings)
    reports = client.reports.documents(client.batches.find(batch).id)
    wanted = "jsonl" if as_json else form
    if out is None:
        _write(wanted, reports, sys.stdout)
    elif out.is_dir() or not out.suffix:
        files = write_directory(reports, out)
        click.echo(f"{counted(len(files), 'file')} in {out}/", err=True)
    else:
        with click.open_file(str(out), "w", encoding="utf-8", atomic=True) as file:
            _write(wanted, reports, cast(TextIO, file))


def _write(form: str, reports: Iterable[DocumentReport], out: TextIO) -> None:
    match form:
        case "md":
            write_markdown(reports, out)
        case "jsonl":
            write_jsonl(reports, out)
        case "csv":
            write_csv(reports, out)
