"""All measurements of one batch that a report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from docmill.insight.report.timeline import Timeline, build_timeline
from docmill.storage.database import Database
from docmill.storage.reads import measurements as reads
from docmill.storage.reads.batch_status import BatchStatus
from docmill.storage.reads.batch_timeline import (
    Distribution,
    Duration,
    WorkerUsage,
    attempts_in_engines,
    read_distribution,
    read_usage,
)
from docmill.storage.reads.reports import Reports
from docmill.storage.states import AttemptOutcome

LARGEST_DOCUMENTS = 20
SLOWEST_JOBS = 12
FAILED_DOCUMENTS = 20
SHARES = (*(number / 100 for number in range(100)), 0.995, 0.999, 1.0)
_USAGE_MOMENTS = 60


@dataclass(frozen=True, slots=True)
class ReportData:
    """One batch. Lists are cut at a limit; their rows have the columns that `docmill report --json` prints.

    `timeline` is None before any job has run; `durations` has only those that were measured.
    """

    status: BatchStatus
    span: reads.Span
    outcomes: Mapping[AttemptOutcome, reads.OutcomeTotals]
    reused_tokens: int
    levels: Sequence[Row[Any]]
    workers: Sequence[reads.WorkerTotals]
    documents: Sequence[Row[Any]]
    failed_attempts: Sequence[Row[Any]]
    failed_documents: Sequence[Row[Any]]
    slowest: Sequence[Row[Any]]
    durations: Mapping[Duration, Distribution]
    timeline: Timeline | None
    usage: Sequence[WorkerUsage]

    @property
    def attempts_total(self) -> int:
        return sum(totals.attempts for totals in self.outcomes.values())

    @property
    def succeeded(self) -> reads.OutcomeTotals:
        """The attempts that computed a result; only their tokens count."""
        return self._totals(AttemptOutcome.SUCCEEDED)

    @property
    def tokens(self) -> int:
        """Read and written."""
        return self.succeeded.prompt_tokens + self.succeeded.completion_tokens

    @property
    def cached_tokens(self) -> int | None:
        """Prompt tokens that came from a cache; None if no engine reports them."""
        return self.succeeded.cached_tokens if self.succeeded.cached_measured else None

    @property
    def tokens_per_s(self) -> float | None:
        """Over the whole working time; None before anything was measured."""
        return self.tokens / self.span.seconds if self.tokens and self.span.seconds else None

    @property
    def written_per_s(self) -> float | None:
        written = self.succeeded.completion_tokens
        return written / self.span.seconds if written and self.span.seconds else None

    @property
    def occupancy(self) -> float | None:
        return self.timeline.occupancy if self.timeline else None

    @property
    def failure_share(self) -> float | None:
        """Failed attempts among those that succeeded or failed."""
        failed = self._totals(AttemptOutcome.FAILED).attempts
        tried = failed + self.succeeded.attempts
        return failed / tried if tried else None

    @property
    def slots(self) -> int:
        """Of all workers."""
        return sum(worker.slots for worker in self.workers)

    @property
    def peak_memory_bytes(self) -> int:
        """The largest engine process, or worker with its engine."""
        return max((*(u.rss_bytes for u in self.usage), *(w.peak_memory_bytes for w in self.workers)), default=0)

    @property
    def peak_vram_bytes(self) -> int | None:
        peaks = [worker.peak_vram_bytes for worker in self.workers] + [usage.vram_bytes for usage in self.usage]
        return max((peak for peak in peaks if peak is not None), default=None)

    def _totals(self, outcome: AttemptOutcome) -> reads.OutcomeTotals:
        return self.outcomes.get(outcome, reads.OutcomeTotals(outcome))


def read_report(database: Database, batch_id: str) -> ReportData:
    """Query everything. Raises NoSuchBatch."""
    status = Reports(database).batch(batch_id)
    with database.read() as session:
        span = reads.read_span(session, batch_id)
        outcomes = {totals.outcome: totals for totals in reads.outcome_totals(session, batch_id)}
        workers = reads.worker_totals(session, batch_id)
        attempts = sum(totals.attempts for totals in outcomes.values())
        durations = {duration: read_distribution(session, batch_id, duration, SHARES) for duration in Duration}
        return ReportData(
            status=status,
            span=span,
            outcomes=outcomes,
            reused_tokens=reads.reused_tokens(session, batch_id),
            levels=reads.level_totals(session, batch_id),
            workers=workers,
            documents=reads.largest_documents(session, batch_id, LARGEST_DOCUMENTS),
            failed_attempts=reads.failed_attempts(session, batch_id),
            failed_documents=reads.failed_documents(session, batch_id, FAILED_DOCUMENTS),
            slowest=reads.slowest_jobs(session, batch_id, SLOWEST_JOBS),
            durations={duration: found for duration, found in durations.items() if found},
            timeline=build_timeline(attempts_in_engines(session, batch_id), attempts, span, workers),
            usage=read_usage(session, [worker.name for worker in workers], span, _USAGE_MOMENTS),
        )
