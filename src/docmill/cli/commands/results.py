"""`docmill results`."""

from __future__ import annotations

import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TextIO, cast

import click

from docmill.cli.context import CliContext, pass_context
from docmill.cli.options import batch_argument
from docmill.formatting import counted, parse_duration


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
@batch_argument
@click.option(
    "--format", "form", type=click.Choice(["md", "jsonl", "csv"]), default="md", show_default=True,
    help="Format of the output.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Short for --format jsonl.")
@click.option("--out", type=click.Path(path_type=Path), help="A file, or a directory for one file per document.")
@click.option("--failed", is_flag=True, help="Only documents that failed or have failed jobs.")
@click.option("--document", metavar="NAME", help="Only documents of this name; may contain the wildcards * and ?.")
@click.option(
    "--since", metavar="2h", help="Only documents finished within this time (30m, 2h, 7d), or since an ISO time."
)
@pass_context
def results(
    context: CliContext,
    batch: str,
    form: str,
    as_json: bool,
    out: Path | None,
    failed: bool,
    document: str | None,
    since: str | None,
) -> None:
    """Print a batch's results in input order. Unfinished documents are shown with their states."""
    from docmill.producer import result_export
    from docmill.storage.reads.documents import DocumentFilter

    wanted = DocumentFilter(document, failed, None if since is None else _moment(context, since))
    reports = context.backend.reports.documents(context.backend.batches.find(batch).id, wanted)
    writers = {"md": result_export.write_markdown, "jsonl": result_export.write_jsonl, "csv": result_export.write_csv}
    write = writers["jsonl" if as_json else form]
    if out is None:
        write(reports, sys.stdout)
    elif out.is_dir() or not out.suffix:
        files = result_export.write_directory(reports, out)
        click.echo(f"{counted(len(files), 'file')} in {out}/", err=True)
    else:
        with click.open_file(str(out), "w", encoding="utf-8", atomic=True) as file:
            write(reports, cast(TextIO, file))


def _moment(context: CliContext, since: str) -> float:
    """Seconds since 1970: a duration before the database's time, or an ISO time in the local time zone."""
    with suppress(ValueError):
        return context.backend.reports.now() - parse_duration(since)
    try:
        return datetime.fromisoformat(since).timestamp()
    except ValueError:
        raise click.BadParameter(
            f"{since!r} is neither a duration like 30m, 2h or 7d nor a time like 2026-11-25T08:00", param_hint="--since"
        ) from None
