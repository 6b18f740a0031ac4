"""`docmill run`: everything on one machine, from documents to summaries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from docmill.cli.context import CliContext, pass_context
from docmill.cli.options import engine_option, slots_option
from docmill.cli.submission_options import submission_options
from docmill.formatting import counted
from docmill.storage.states import JobState

if TYPE_CHECKING:
    from docmill.cli.services.local_run import RunOutcome


@click.command(
    epilog="""\b
Examples:
  docmill run novel.txt
  docmill run reports/ --task key-points --out key-points/
  docmill run letters.jsonl --prompt "List every date in: {text}" --merge none
"""
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@submission_options
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("docmill-out"), show_default=True,
    help="Directory for the Markdown files and results.jsonl.",
)  # fmt: skip
@engine_option
@slots_option
@pass_context
def run(
    context: CliContext,
    /,
    paths: tuple[str, ...],
    out: Path,
    engine: str | None,
    slots: int | None,
    **options: Any,
) -> None:
    """Summarize documents on this machine: starts broker, dispatcher and worker, and stops them at the end.

    Writes one Markdown file per document and results.jsonl. Ctrl-C is safe: run the same command again to
    continue, and finished work is not repeated.
    """
    from docmill.cli.services.local_run import run_documents

    outcome = run_documents(context, paths, out, options, engine=engine, slots=slots)
    _print_outcome(context, outcome, out)
    context.exit(outcome.exit_code)


def _print_outcome(context: CliContext, outcome: RunOutcome, out: Path) -> None:
    status = outcome.status
    if outcome.interrupted:
        finished = f"{status.jobs_by_state[JobState.SUCCEEDED]} of {status.jobs_total} jobs are finished and stored"
        click.echo(f"stopped; {finished}. Run the same command again to continue.", err=True)
        return
    done = status.documents_ended - status.documents_failed
    rate = f", {outcome.tokens_per_s:,.0f} tokens/s" if outcome.tokens_per_s else ""
    click.echo(f"{done} of {status.documents_total} documents done{rate}: {out}/", err=True)
    for reason in context.backend.reports.failures(status.id):
        click.echo(f"  {counted(reason.count, 'job')} failed: {reason.kind}: {reason.example}", err=True)
    if status.documents_failed:
        click.echo(f"  `docmill retry {status.id}` queues the failed jobs again", err=True)
    click.echo(f"metrics of every attempt: table attempts in {context.backend.database}", err=True)
