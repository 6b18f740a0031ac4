"""Follows batches: the full-screen view and the lines of `status --watch`, and the progress of `docmill run`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TextIO

import click
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner

from docmill.cli.display.live_view import Snapshot, WorkerLoad, batch_line, batch_view, snapshot_view
from docmill.cli.display.terminal import single_keys
from docmill.producer.composition import Backend
from docmill.producer.wait_for_batch import batch_statuses
from docmill.storage.errors import StorageError
from docmill.storage.reads.batch_status import BatchStatus
from docmill.storage.reads.eta import RecentAttempt, pace_of
from docmill.storage.states import JobState

_REFRESH_S = 1.0
_LINE_INTERVAL_S = 5.0
_MAX_BATCHES = 8
_MAX_FAILURES = 1_000


def watch(backend: Backend, batch_id: str | None) -> None:
    """Show one batch on the terminal until it has ended, or all batches, until `q` is pressed.

    While the database does not answer, the last state and the reason are shown.
    """
    snapshot = Snapshot()
    with single_keys() as keys, Live(console=Console(highlight=False), screen=True, auto_refresh=False) as live:
        while batch_id is None or not any(status.state.is_terminal for status in snapshot.batches):
            try:
                snapshot = _snapshot(backend, batch_id)
            except StorageError as error:
                snapshot = replace(snapshot, problem=str(error))
            live.update(snapshot_view(snapshot), refresh=True)
            until = time.monotonic() + _REFRESH_S
            while (left_s := until - time.monotonic()) > 0:
                if keys.wait(left_s) in ("q", "Q"):
                    return
                live.refresh()


def watch_as_lines(backend: Backend, batch_id: str, out: TextIO) -> None:
    """Print a line when something has changed, at most every five seconds, until the batch has ended."""
    lines = _Lines(lambda line: click.echo(line, file=out))
    for status in batch_statuses(backend.reports, batch_id, interval_s=_REFRESH_S):
        lines.show(batch_line(status), force=status.state.is_terminal)


@contextmanager
def batch_progress(console: Console) -> Iterator[BatchProgress]:
    """Shows the progress of one batch while the block runs: drawn on a terminal, as lines elsewhere."""
    with Live(console=console, refresh_per_second=4) if console.is_terminal else nullcontext() as live:
        yield BatchProgress(console, live)


class BatchProgress:
    """Created by `batch_progress`."""

    def __init__(self, console: Console, live: Live | None) -> None:
        self._live = live
        self._lines = _Lines(lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True))
        self._stage = ""

    def show_stage(self, stage: str) -> None:
        """Show what is done before the first job runs."""
        if stage == self._stage:
            return
        self._stage = stage
        if self._live is not None:
            self._live.update(Spinner("dots", stage))
        else:
            self._lines.show(stage, force=True)

    def show(self, status: BatchStatus) -> None:
        """Show the batch's progress."""
        if not status.state.is_terminal and not status.completion_tokens and not status.jobs_by_state[JobState.RUNNING]:
            self.show_stage("loading the model")
        elif self._live is not None:
            self._live.update(batch_view(status))
        else:
            self._lines.show(batch_line(status), force=status.state.is_terminal)


class _Lines:
    """Prints a line if it differs from the one before and, unless forced, at most every five seconds."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._line = ""
        self._printed_at = -_LINE_INTERVAL_S

    def show(self, line: str, *, force: bool = False) -> None:
        now = time.monotonic()
        if line != self._line and (force or now - self._printed_at >= _LINE_INTERVAL_S):
            self._write(line)
            self._line, self._printed_at = line, now


def _snapshot(backend: Backend, batch_id: str | None) -> Snapshot:
    reports = backend.reports
    batches = reports.at_work(_MAX_BATCHES) if batch_id is None else [reports.batch(batch_id)]
    workers = reports.workers()
    now = reports.now()
    attempts = reports.recent_attempts(sorted({worker.model for worker in workers}))
    return Snapshot(
        batches=batches,
        failures={s.id: reports.failures(s.id, newest=_MAX_FAILURES) for s in batches if s.jobs_failed},
        workers=workers,
        loads={
            worker.name: _load([a for a in attempts if a.worker == worker.name], worker.started_at, now)
            for worker in workers
        },
        queues=reports.queues(),
        at=now,
    )


def _load(attempts: Sequence[RecentAttempt], started_at: float, now: float) -> WorkerLoad:
    measured = [attempt for attempt in attempts if attempt.cached_tokens is not None]
    prompt_tokens = sum(attempt.prompt_tokens for attempt in measured)
    cached_tokens = sum(attempt.cached_tokens or 0 for attempt in measured)
    return WorkerLoad(
        tokens_per_s=pace_of(attempts, started_at, now).tokens_per_s,
        cached_share=cached_tokens / prompt_tokens if prompt_tokens else None,
        peak_memory_bytes=max((attempt.peak_memory_bytes for attempt in attempts), default=0),
    )
