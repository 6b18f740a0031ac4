"""What `docmill status --watch` shows, and how it is drawn; knows no terminal and no database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from docmill.formatting import duration, gib
from docmill.insight.eta import Eta
from docmill.storage.reads.batch_status import BatchStatus
from docmill.storage.reads.live_status import QueueStatus
from docmill.storage.reads.reports import FailureReason, WorkerStatus
from docmill.storage.states import JobState


@dataclass(frozen=True, slots=True)
class Load:
    """What a batch or a worker did in the last minutes. Rates in tokens a second, memory in bytes."""

    tokens_per_s: float | None = None
    cached: float | None = None  # share of the prompt tokens; None where the engine does not tell
    peak_memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class WatchedBatch:
    """A batch with what is known of its pace. `average_per_s` is since its first job could run."""

    status: BatchStatus
    now: Load
    average_per_s: float | None
    eta: Eta | None
    failures: Sequence[FailureReason] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything, at one moment."""

    batches: Sequence[WatchedBatch]
    workers: Sequence[WorkerStatus]
    loads: Mapping[str, Load] = field(default_factory=dict)  # by worker
    queues: Sequence[QueueStatus] = ()
    at: float = 0.0  # seconds since 1970, by the database
    trouble: str = ""


def drawn(snapshot: Snapshot) -> RenderableType:
    """The whole view, to be cut to the terminal's size."""
    parts: list[RenderableType] = []
    if snapshot.trouble:
        parts.append(Text(snapshot.trouble, style="red"))
    for batch in snapshot.batches:
        parts += [*_batch(batch), Text()]
    if not snapshot.batches:
        parts += [Text("no batch is at work"), Text()]
    parts.append(_workers(snapshot) if snapshot.workers else Text("no worker was seen in the last minute"))
    if snapshot.queues:
        parts += [Text(), _queues(snapshot.queues)]
    parts += [Text(), Text("q quits", style="dim")]
    return Group(*parts)


def plain(batch: WatchedBatch) -> str:
    """One line, for a log or a pipe."""
    status = batch.status
    parts = [
        f"{status.id} {status.state}: {status.jobs_ended}/{status.jobs_total} jobs",
        f"{_documents_done(status)}/{status.documents_total} documents",
        _rates(batch),
        f"{left} left" if (left := _left(batch.eta)) else "",
        f"{failed} failed" if (failed := status.jobs_by_state.get(JobState.FAILED, 0)) else "",
    ]
    return ", ".join(part for part in parts if part)


def _batch(batch: WatchedBatch) -> list[RenderableType]:
    status = batch.status
    head = Text.assemble(
        (status.id, "bold"), f"  {status.state}  ", (f"{status.task}, {status.model}", "dim"), overflow="ellipsis"
    )
    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True)
    counts = f"{status.jobs_ended:,}/{status.jobs_total:,} jobs"
    documents = f"{_documents_done(status):,}/{status.documents_total:,} documents"
    bar.add_row(
        ProgressBar(total=max(1, status.jobs_total), completed=status.jobs_ended),
        f"{counts} ({status.jobs_ended / max(1, status.jobs_total):.0%})  {documents}",
    )
    facts = [_rates(batch)]
    if batch.now.cached:
        facts.append(f"{batch.now.cached:.0%} of prompts cached")
    if left := _left(batch.eta):
        facts.append(f"{left} left")
    lines: list[RenderableType] = [
        head,
        bar,
        Text(" · ".join(fact for fact in facts if fact) or "nothing measured yet"),
    ]
    if failed := status.jobs_by_state.get(JobState.FAILED, 0):
        reasons = ", ".join(f"{reason.count:,} {reason.kind}" for reason in batch.failures)
        lines.append(Text(f"{failed:,} failed: {reasons}", style="red"))
    return lines


def _workers(snapshot: Snapshot) -> Table:
    table = _table("worker", "engine, model")
    for heading in ("slots", "tokens/s", "cached", "memory", "seen"):
        table.add_column(heading, justify="right", no_wrap=True)
    for worker in snapshot.workers:
        load = snapshot.loads.get(worker.name, Load())
        table.add_row(
            worker.name,
            f"{worker.engine}, {worker.model}",
            f"{min(worker.running, worker.slots)}/{worker.slots}",
            f"{load.tokens_per_s:,.0f}" if load.tokens_per_s else "",
            f"{load.cached:.0%}" if load.cached is not None else "",
            gib(load.peak_memory_bytes) if load.peak_memory_bytes else "",
            f"{max(0.0, snapshot.at - worker.seen_at):.0f} s ago",
        )
    return table


def _queues(queues: Sequence[QueueStatus]) -> Table:
    table = _table("queue")
    for heading in ("waiting", "in the broker", "running", "workers"):
        table.add_column(heading, justify="right", no_wrap=True)
    for queue in queues:
        counts = (queue.waiting, queue.announced, queue.running, queue.workers)
        table.add_row(queue.model, *(f"{count:,}" for count in counts))
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
    for heading in headings:
        table.add_column(heading, overflow="ellipsis", no_wrap=True, ratio=1)
    return table


def _documents_done(status: BatchStatus) -> int:
    return status.documents_total - status.documents_open


def _rates(batch: WatchedBatch) -> str:
    rates = ((batch.now.tokens_per_s, "now"), (batch.average_per_s, "average"))
    said = [f"{rate:,.0f} {what}" for rate, what in rates if rate]
    return f"tokens/s {', '.join(said)}" if said else ""


def _left(eta: Eta | None) -> str:
    if eta is None:
        return ""
    if eta.soonest_s is None:
        return f"about {duration(eta.seconds)}"
    latest = "?" if eta.latest_s is None else duration(eta.latest_s)
    return f"about {duration(eta.seconds)} ({duration(eta.soonest_s)} to {latest})"
