"""What `docmill run` and `docmill demo` do: submit documents, run the services, write the results."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docmill.cli.context import CliContext
from docmill.cli.display.watch import BatchProgress, batch_progress
from docmill.cli.services.signals import interruptible
from docmill.cli.services.stack import Stack, prepare_database
from docmill.cli.submission_options import prepare, submit_and_report
from docmill.producer.result_export import write_directory
from docmill.producer.submission import Resume
from docmill.producer.wait_for_batch import batch_statuses
from docmill.storage.reads.batch_status import BatchStatus
from docmill.storage.states import BatchState, JobState


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended. `skipped` counts the documents that could not be read.

    `tokens_per_s` is the rate of this run: an earlier, interrupted run of the same batch does not count.
    """

    status: BatchStatus
    tokens_per_s: float | None
    skipped: int
    interrupted: bool

    @property
    def exit_code(self) -> int:
        """0: every document is done; 1: some are not; 130: interrupted."""
        if self.interrupted:
            return 130
        is_complete = self.status.state is BatchState.COMPLETED and not self.status.documents_failed
        return 0 if is_complete and not self.skipped else 1


def run_documents(
    context: CliContext,
    paths: Sequence[str],
    out: Path,
    options: dict[str, Any],
    *,
    engine: str | None = None,
    slots: int | None = None,
) -> RunOutcome:
    """Submit a batch or continue it, run the services until it has ended or a signal comes, and write the results."""
    settings, backend = context.settings, context.backend
    model = context.model_name(options.get("model"))
    prepare_database(settings)
    submission = prepare(context, paths, options)
    with interruptible() as stop, batch_progress(context.console) as progress:
        progress.show_stage("reading documents")
        submitted = submit_and_report(context, submission, resume=Resume.ANY)
        status, rate = backend.reports.batch(submitted.id), None
        if not status.state.is_terminal:
            with Stack(settings, context.global_options, model=model, engine=engine, slots=slots) as stack:
                status, rate = _follow(context, stack, status.id, progress, stop)
    interrupted = stop.is_set()
    if not interrupted:
        write_directory(backend.reports.documents(submitted.id), out)
    return RunOutcome(status, rate, len(submitted.skipped), interrupted)


def _follow(
    context: CliContext, stack: Stack, batch_id: str, progress: BatchProgress, stop: threading.Event
) -> tuple[BatchStatus, float | None]:
    """Show the batch's progress to its end or a signal; its last status, and the rate since its first job ran."""
    first: BatchStatus | None = None
    for status in batch_statuses(context.backend.reports, batch_id):
        progress.show(status)
        if first is None and status.jobs_by_state[JobState.RUNNING]:
            first = status
        if stop.is_set():
            break
        if not status.state.is_terminal:
            stack.check()
    return status, None if first is None else _tokens_per_s(first, status)


def _tokens_per_s(first: BatchStatus, last: BatchStatus) -> float | None:
    tokens = (last.prompt_tokens + last.completion_tokens) - (first.prompt_tokens + first.completion_tokens)
    elapsed_s = last.elapsed_s - first.elapsed_s
    return tokens / elapsed_s if tokens and elapsed_s > 0 else None
