"""`docmill submit`."""

from __future__ import annotations

from typing import Any

import click

from docmill.cli.context import CliContext, pass_context
from docmill.cli.display.output import print_json
from docmill.cli.options import json_option
from docmill.cli.submission_options import prepare, submission_options, submit_and_report
from docmill.formatting import counted


@click.command(
    epilog="""\b
Examples:
  docmill submit reports/ notes.md --task key-points --metadata team=legal
  BATCH=$(docmill submit --quiet corpus.jsonl) && docmill status $BATCH --watch
"""
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@submission_options
@click.option("--quiet", "-q", is_flag=True, help="Print only the batch id.")
@json_option
@pass_context
def submit(context: CliContext, /, paths: tuple[str, ...], quiet: bool, as_json: bool, **options: Any) -> None:
    """Cut documents into jobs, store them and queue the first.

    PATH is a file (txt, md, html, jsonl, csv, also in .gz or .zip), a directory, a glob, or - for standard input.
    Documents that cannot be read are reported and skipped, and the exit code is 1. After a crash, the same submit
    continues where it stopped.
    """
    submitted = submit_and_report(context, prepare(context, paths, options))
    status = context.backend.reports.batch(submitted.id)
    if as_json:
        print_json(
            {
                "batch": submitted.id,
                "documents": submitted.documents,
                "jobs": status.jobs_total,
                "skipped": [{"document": s.name, "reason": s.reason} for s in submitted.skipped],
                "resumed": submitted.resumed,
            }
        )
    else:
        click.echo(submitted.id)
        if not quiet:
            documents, jobs = counted(submitted.documents, "document"), counted(status.jobs_total, "job")
            click.echo(f"{documents}, {jobs}, model {status.model}", err=True)
            if context.backend.broker() is None:
                click.echo("stored; `docmill up` runs it", err=True)
    if submitted.skipped:
        context.exit(1)
