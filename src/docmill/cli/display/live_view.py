"""How the progress of batches, workers and queues is drawn, on a terminal and as plain lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from docmill.formatting import duration, gib
from docmill.storage.reads.batch_status import BatchStatus
from docmill.storage.reads.eta import Eta
from docmill.storage.reads.queues import QueueStatus
from docmill.storage.reads.reports import FailureReason, WorkerStatus


@dataclass(frozen=True, slots=True)
class WorkerLoad:
    """What a worker did in the last minutes; None where nothing was measured."""

    tokens_per_s: float | None
    cached_share: float | None  # of the prompt tokens
    peak_memory_bytes: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of batches, workers and queues at one moment, `at` in seconds since 1970 by the database's clock."""

    batches: Sequence[BatchStatus] = ()
    failures: Mapping[str, Sequence[FailureReason]] = field(default_factory=dict)  # by batch
    workers: Sequence[WorkerStatus] = ()
    loads: Mapping[str, WorkerLoad] = field(default_factory=dict)  # by worker
    queues: Sequence[QueueStatus] = ()
    at: float = 0.0
    problem: str = ""


def snapshot_view(snapshot: Snapshot) -> RenderableType:
    """The full-screen view; the caller cuts it to the terminal's size."""
    parts: list[RenderableType] = []
    if snapshot.problem:
        parts.append(Text(snapshot.problem, style="red"))
    for status in snapshot.batches:
        parts += [batch_view(status, snapshot.failures.get(status.id, ())), Text()]
    if not snapshot.batches:
        parts += [Text("no batch is active"), Text()]
    parts.append(_workers(snapshot) if snapshot.workers else Text("no worker was seen in the last minute"))
    if snapshot.queues:
        parts += [Text(), _queues(snapshot.queues)]
    parts += [Text(), Text("q quits", style="dim")]
    return Group(*parts)


def batch_view(status: BatchStatus, failures: Sequence[FailureReason] = ()) -> RenderableType:
    """A batch with its progress bar, rates and remaining time."""
    heading = Text.assemble(
        (status.id, "bold"), f"  {status.state}  ", (f"{status.task}, {status.model}", "dim"), overflow="ellipsis"
    )
    total = max(1, status.jobs_total)
    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True)
    bar.add_row(
        ProgressBar(total=total, completed=status.jobs_ended),
        f"{status.jobs_ended:,}/{status.jobs_total:,} jobs ({status.jobs_ended / total:.0%})  "
        f"{status.documents_ended:,}/{status.documents_total:,} documents",
    )
    facts = [
        _rates(status) or "nothing measured yet",
        f"{status.cached_tokens / status.prompt_tokens:.0%} of prompts cached" if status.cached_tokens else "",
        f"{duration(status.elapsed_s)} elapsed",
        _time_left(status.eta),
    ]
    lines: list[RenderableType] = [heading, bar, Text(" · ".join(filter(None, facts)))]
    if status.jobs_failed:
        reasons = ", ".join(f"{reason.count:,} {reason.kind}" for reason in failures)
        lines.append(Text(f"{status.jobs_failed:,} failed{': ' if reasons else ''}{reasons}", style="red"))
    return Group(*lines)


def batch_line(status: BatchStatus) -> str:
    """A batch in one line, for a log or a pipe."""
    parts = [
        f"{status.id} {status.state}: {status.jobs_ended}/{status.jobs_total} jobs",
        f"{status.documents_ended}/{status.documents_total} documents",
        _rates(status),
        _time_left(status.eta),
        f"{status.jobs_failed} failed" if status.jobs_failed else "",
    ]
    return ", ".join(filter(None, parts))


def _rates(status: BatchStatus) -> str:
    current = None if status.state.is_terminal else status.tokens_per_s
    rates = ((current, "now"), (status.average_tokens_per_s, "average"))
    shown = [f"{rate:,.0f} {when}" for rate, when in rates if rate]
    return f"tokens/s {', '.join(shown)}" if shown else ""


def _time_left(eta: Eta | None) -> str:
    if eta is None:
        return ""
    if eta.soonest_s is None:
        return f"about {duration(eta.seconds)} left"
    return f"about {duration(eta.seconds)} ({duration(eta.soonest_s)} to {duration(eta.latest_s)}) left"


def _workers(snapshot: Snapshot) -> Table:
    table = _table("worker", "engine, model", right=("slots", "tokens/s", "cached", "memory", "seen"))
    for worker in snapshot.workers:
        load = snapshot.loads[worker.name]
        table.add_row(
            worker.name,
            f"{worker.engine}, {worker.model}",
            f"{min(worker.running, worker.slots)}/{worker.slots}",
            f"{load.tokens_per_s:,.0f}" if load.tokens_per_s else "",
            f"{load.cached_share:.0%}" if load.cached_share is not None else "",
            gib(load.peak_memory_bytes) if load.peak_memory_bytes else "",
            f"{max(0.0, snapshot.at - worker.seen_at):.0f} s ago",
        )
    return table


def _queues(queues: Sequence[QueueStatus]) -> Table:
    table = _table("queue", right=("waiting", "in the broker", "running", "workers"))
    for queue in queues:
        counts = (queue.waiting, queue.announced, queue.running, queue.workers)
        table.add_row(queue.model, *(f"{count:,}" for count in counts))
    return table


def _table(*left: str, right: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
    for heading in left:
        table.add_column(heading, overflow="ellipsis", no_wrap=True, ratio=1)
    for heading in right:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
