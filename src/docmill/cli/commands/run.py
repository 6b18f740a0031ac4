"""`docmill run`: everything on one machine, from documents to summaries."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from docmill.cli.context import CliContext, pass_context
from docmill.cli.display.progress import BatchProgress
from docmill.cli.options import engine_option, slots_option
from docmill.cli.services.stack import Stack
from docmill.cli.submission_options import IntakeReport, prepare, say_warnings, submission_options
from docmill.formatting import counted
from docmill.producer.composition import Backend, database_url
from docmill.producer.result_export import write_directory
from docmill.producer.submission import Resume
from docmill.producer.wait_for_batch import batch_statuses
from docmill.storage.database import Database
from docmill.storage.reads.batch_status import BatchStatus
from docmill.storage.schema import upgrade
from docmill.storage.states import BatchState, JobState


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
    help="Where the Markdown files and results.jsonl go.",
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
    """Summarize documents on this machine: broker, dispatcher and worker included.

    Writes one Markdown file a document and results.jsonl. Ctrl-C stops in order; the same command again goes on
    where it stopped, and redoes nothing that is finished.
    """
    outcome = run_documents(context, paths, out, engine=engine, slots=slots, options=options)
    _say_outcome(Backend(context.settings), outcome, out)
    context.exit(outcome.exit_code)


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended. `files` are what it wrote, none when it was interrupted.

    `tokens_per_s` is this run's own: an earlier, interrupted one and the time between do not count.
    """

    status: BatchStatus
    tokens_per_s: float | None
    files: Sequence[Path]
    skipped: int
    interrupted: bool

    @property
    def exit_code(self) -> int:
        """0: every document is done; 1: some are not; 130: interrupted."""
        if self.interrupted:
            return 130
        whole = self.status.state is BatchState.COMPLETED and not self.status.documents_failed
        return 0 if whole and not self.skipped else 1


def run_documents(
    context: CliContext,
    paths: Sequence[str],
    out: Path,
    *,
    engine: str | None,
    slots: int | None,
    options: dict[str, Any],
) -> RunOutcome:
    """Submit (or take up) a batch, run the stack until it has ended or a signal comes, write the results."""
    settings = context.settings
    model = options.get("model") or settings.profile(context.profile).model
    if settings.storage.url is None:
        upgrade(Database(database_url(settings)))
    backend = Backend(settings)
    submission = prepare(context, backend, paths, options)
    report = IntakeReport()
    with _interruptible() as interrupted, BatchProgress(context.console) as progress:
        progress.say("reading documents")
        submitted = backend.submit(submission, resume=Resume.ANY, on_document=report)
        say_warnings(submitted, report.skipped)
        status, rate = backend.reports.batch(submitted.id), None
        if not status.state.is_terminal:
            with Stack(settings, context.global_options, _worker_options(model, engine, slots)) as stack:
                status, rate = _watch(backend, stack, submitted.id, progress, interrupted)
    files = [] if interrupted else write_directory(backend.reports.documents(submitted.id), out)
    return RunOutcome(status, rate, files, len(submitted.skipped), interrupted=bool(interrupted))


def _watch(
    backend: Backend, stack: Stack, batch_id: str, progress: BatchProgress, interrupted: list[int]
) -> tuple[BatchStatus, float | None]:
    """Follow the batch to its end or a signal; its last status, and tokens a second since the first job began."""
    began: BatchStatus | None = None
    for status in batch_statuses(backend.reports, batch_id):
        progress.show(status)
        if began is None and status.jobs_by_state[JobState.RUNNING]:
            began = status
        if interrupted:
            break
        if not status.state.is_terminal:
            stack.check()
    return status, None if began is None else _tokens_per_s(began, status)


def _tokens_per_s(began: BatchStatus, now: BatchStatus) -> float | None:
    done = (now.prompt_tokens + now.completion_tokens) - (began.prompt_tokens + began.completion_tokens)
    elapsed_s = now.elapsed_s - began.elapsed_s
    return done / elapsed_s if done and elapsed_s > 0 else None


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying of the first; the second SIGINT interrupts at once."""
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _worker_options(model: str, engine: str | None, slots: int | None) -> list[str]:
    options = ["--model", model]
    if engine:
        options += ["--engine", engine]
    if slots:
        options += ["--slots", str(slots)]
    return options


def _say_outcome(backend: Backend, outcome: RunOutcome, out: Path) -> None:
    status = outcome.status
    if outcome.interrupted:
        finished = status.jobs_by_state.get(JobState.SUCCEEDED, 0)
        click.echo(
            f"stopped; {finished} of {status.jobs_total} jobs are finished and kept. "
            "The same command goes on from here.",
            err=True,
        )
        return
    done = status.documents_total - status.documents_failed - status.documents_open
    rate = f", {outcome.tokens_per_s:,.0f} tokens/s" if outcome.tokens_per_s else ""
    click.echo(f"{done} of {status.documents_total} documents done{rate}: {out}/", err=True)
    for reason in backend.reports.failures(status.id):
        click.echo(f"  {counted(reason.count, 'job')} failed: {reason.kind}: {reason.example}", err=True)
    if status.documents_failed:
        click.echo(f"  `docmill retry {status.id}` queues the failed jobs again", err=True)
    click.echo(f"metrics of every attempt: table attempts in {backend.database}", err=True)
