"""A batch's progress, live: jobs, tokens a second, time left; plain lines where the output is no terminal."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from docmill.formatting import duration
from docmill.storage.reads.batch_status import BatchStatus
from docmill.storage.states import JobState

_PLAIN_S = 10.0


class BatchProgress:
    """A context manager; call `show` with every new status."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._said_at = 0.0
        self._said = ""

    def __enter__(self) -> BatchProgress:
        if self._console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("jobs"),
                TextColumn("{task.fields[rate]}"),
                TextColumn("{task.fields[left]}"),
                TimeElapsedColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("starting", total=None, rate="", left="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, what: str) -> None:
        """Show what goes on before there are jobs."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=what)
        elif what != self._said:
            self._console.print(what, highlight=False, markup=False)
        self._said = what

    def show(self, status: BatchStatus) -> None:
        """Show how far the batch is."""
        rate = f"{status.tokens_per_s:,.0f} tokens/s" if status.tokens_per_s else ""
        left = f"{duration(status.eta_s)} left" if status.eta_s is not None else ""
        ended = sum(count for state, count in status.jobs_by_state.items() if state.is_terminal)
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task,
                description=_stage(status),
                completed=ended,
                total=status.jobs_total or None,
                rate=rate,
                left=left,
            )
        elif time.monotonic() - self._said_at >= _PLAIN_S or status.state.is_terminal:
            self._said_at = time.monotonic()
            parts = [f"{ended}/{status.jobs_total} jobs", _stage(status), rate, left]
            self._console.print(", ".join(p for p in parts if p), highlight=False, markup=False)


def _stage(status: BatchStatus) -> str:
    if status.state.is_terminal:
        return str(status.state)
    if not status.jobs_by_state.get(JobState.RUNNING) and not status.completion_tokens:
        return "loading the model"
    done = status.documents_total - status.documents_open
    return f"{done} of {status.documents_total} documents"
