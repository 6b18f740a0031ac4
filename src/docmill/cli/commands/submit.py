"""`docmill submit`."""

from __future__ import annotations

from typing import Any

import click

from docmill.cli.context import CliContext, pass_context
from docmill.cli.display.output import print_json
from docmill.cli.submission_options import IntakeReport, prepare, say_warnings, submission_options
from docmill.formatting import counted
from docmill.producer.composition import Backend


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
@click.option("--json", "as_json", is_flag=True, help="Print what was submitted as JSON.")
@pass_context
def submit(context: CliContext, /, paths: tuple[str, ...], quiet: bool, as_json: bool, **options: Any) -> None:  # noqa: FBT001
    """Cut documents into jobs, store them and queue the first.

    PATH is a file (txt, md, html, jsonl, csv, and .gz or .zip of these), a directory, a glob, or - for standard
    input. A document that cannot be read is named and skipped, and the exit code is 1. The same submit after a
    crash goes on where it stopped.
    """
    backend = Backend(context.settings)
    submission = prepare(context, backend, paths, options)
    report = IntakeReport()
    submitted = backend.submit(submission, on_document=report)
    say_warnings(submitted, report.skipped)
    status = backend.reports.batch(submitted.id)
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
            if backend.broker() is None:
                click.echo("stored; `docmill up` runs it", err=True)
    if submitted.skipped:
        context.exit(1)
