"""`docmill results`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TextIO, cast

import click

from docmill.cli.context import CliContext, pass_context
from docmill.formatting import counted, parse_duration
from docmill.producer.composition import Backend
from docmill.producer.result_export import write_csv, write_directory, write_jsonl, write_markdown
from docmill.storage.reads.documents import DocumentFilter, DocumentReport
from docmill.storage.reads.live_status import LiveStatus

_FORMS = ("md", "jsonl", "csv")


@click.command(
    epilog="""\b
Examples:
  docmill results latest
  docmill results 261124-k7q2mx --format jsonl | jq -r .summary
  docmill results 261124-k7q2mx --out summaries/
  docmill results latest --failed
  docmill results latest --document '*.pdf.txt' --since 2h
"""
)
@click.argument("batch")
@click.option(
    "--format", "form", type=click.Choice(_FORMS), default="md", show_default=True, help="How they are printed."
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format jsonl.")
@click.option("--out", type=click.Path(path_type=Path), help="A file; or a directory, for one file a document.")
@click.option("--failed", is_flag=True, help="Only documents that failed, or of which jobs did.")
@click.option("--document", metavar="NAME", help="Only documents of this name; * and ? stand for any characters.")
@click.option("--since", metavar="2h", help="Only those finished within so long (30m, 2h, 7d), or since an ISO time.")
@pass_context
def results(
    context: CliContext,
    batch: str,
    form: str,
    as_json: bool,  # noqa: FBT001
    out: Path | None,
    failed: bool,  # noqa: FBT001
    document: str | None,
    since: str | None,
) -> None:
    """Print a batch's results in input order: finished documents now, the others by their state."""
    backend = Backend(context.settings)
    wanted_documents = DocumentFilter(document, failed, None if since is None else _moment(backend, since))
    reports = backend.reports.documents(backend.batches.find(batch).id, wanted_documents)
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


def _moment(backend: Backend, since: str) -> float:
    """Seconds since 1970: so long before the database's now, or the ISO time, by this machine's zone."""
    with suppress(ValueError):
        return LiveStatus(backend.database).now() - parse_duration(since)
    try:
        return datetime.fromisoformat(since).timestamp()
    except ValueError:
        raise click.BadParameter(
            f"{since!r} is neither a duration like 30m, 2h or 7d nor a time like 2026-11-25T08:00", param_hint="--since"
        ) from None
