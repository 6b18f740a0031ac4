"""Everything a report says about one batch, measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from docmill.insight.report.timeline import Course, buckets_for, course_of
from docmill.storage.database import Database
from docmill.storage.reads.batch_status import BatchStatus
from docmill.storage.reads.batch_timeline import BatchTimeline, Distribution, Duration, SamplesOfWorker
from docmill.storage.reads.measurement_types import (
    DocumentTotals,
    FailedAttempts,
    FailedDocument,
    LevelTotals,
    OutcomeTotals,
    SlowJob,
    Span,
    WorkerTotals,
)
from docmill.storage.reads.measurements import BatchMeasurements
from docmill.storage.reads.reports import Reports
from docmill.storage.states import AttemptOutcome

LARGEST_DOCUMENTS = 20
SLOWEST_JOBS = 12
FAILED_DOCUMENTS = 20
SHARES = (*(number / 100 for number in range(100)), 0.995, 0.999, 1.0)
_SAMPLE_BUCKETS = 60


@dataclass(frozen=True, slots=True)
class ReportNumbers:
    """Of one batch. Lists are cut; `course` is None while nothing has run, durations lack what was not measured."""

    status: BatchStatus
    span: Span
    outcomes: Mapping[AttemptOutcome, OutcomeTotals]
    reused_tokens: int
    levels: Sequence[LevelTotals]
    workers: Sequence[WorkerTotals]
    documents: Sequence[DocumentTotals]
    failed_attempts: Sequence[FailedAttempts]
    failed_documents: Sequence[FailedDocument]
    slowest: Sequence[SlowJob]
    durations: Mapping[Duration, Distribution]
    course: Course | None
    samples: Sequence[SamplesOfWorker]
    sample_width_s: float

    def attempts(self, outcome: AttemptOutcome) -> int:
        """How many attempts ended so."""
        return self.outcomes[outcome].attempts if outcome in self.outcomes else 0

    @property
    def attempts_total(self) -> int:
        return sum(totals.attempts for totals in self.outcomes.values())

    @property
    def succeeded(self) -> OutcomeTotals:
        """The attempts that computed a result: theirs are the tokens that count."""
        none = OutcomeTotals(AttemptOutcome.SUCCEEDED, 0, 0, 0, 0, 0, 0.0, 0)
        return self.outcomes.get(AttemptOutcome.SUCCEEDED, none)

    @property
    def tokens(self) -> int:
        """Read and written."""
        return self.succeeded.prompt_tokens + self.succeeded.completion_tokens

    @property
    def cached_tokens(self) -> int | None:
        """Tokens read that were not computed again; None where no engine told."""
        return self.succeeded.cached_tokens if self.succeeded.cached_measured else None

    @property
    def tokens_per_s(self) -> float | None:
        """Over the whole time at work; None before anything was measured."""
        return self.tokens / self.span.seconds if self.tokens and self.span.seconds else None

    @property
    def written_per_s(self) -> float | None:
        written = self.succeeded.completion_tokens
        return written / self.span.seconds if written and self.span.seconds else None

    @property
    def occupancy(self) -> float | None:
        return self.course.occupancy if self.course else None

    @property
    def failure_share(self) -> float | None:
        """Failed attempts among those that succeeded or failed."""
        failed = self.attempts(AttemptOutcome.FAILED)
        tried = failed + self.succeeded.attempts
        return failed / tried if tried else None

    @property
    def worker_seconds(self) -> float:
        """Of all workers, each from its first to its last job in the batch."""
        return sum(worker.seconds for worker in self.workers)

    @property
    def peak_memory_bytes(self) -> int:
        """The largest engine process, or worker with its engine."""
        sampled = (sample.rss_bytes for sample in self.samples)
        return max((*sampled, *(worker.peak_memory_bytes for worker in self.workers)), default=0)

    @property
    def peak_vram_bytes(self) -> int | None:
        found = [worker.peak_vram_bytes for worker in self.workers] + [sample.vram_bytes for sample in self.samples]
        return max((peak for peak in found if peak is not None), default=None)


def measure(database: Database, batch_id: str) -> ReportNumbers:
    """Read them. Raises NoSuchBatch."""
    status = Reports(database).batch(batch_id)
    measurements, timeline = BatchMeasurements(database), BatchTimeline(database)
    span = measurements.span(batch_id)
    outcomes = {totals.outcome: totals for totals in measurements.outcomes(batch_id)}
    workers = measurements.workers(batch_id)
    buckets = buckets_for(sum(totals.attempts for totals in outcomes.values()))
    found = {duration: timeline.distribution(batch_id, duration, SHARES) for duration in Duration}
    return ReportNumbers(
        status=status,
        span=span,
        outcomes=outcomes,
        reused_tokens=measurements.reused_tokens(batch_id),
        levels=measurements.levels(batch_id),
        workers=workers,
        documents=measurements.largest_documents(batch_id, LARGEST_DOCUMENTS),
        failed_attempts=measurements.failed_attempts(batch_id),
        failed_documents=measurements.failed_documents(batch_id, FAILED_DOCUMENTS),
        slowest=measurements.slowest_jobs(batch_id, SLOWEST_JOBS),
        durations={duration: distribution for duration, distribution in found.items() if distribution},
        course=course_of(timeline.changes(batch_id, span, buckets), span, buckets, workers),
        samples=timeline.samples([worker.name for worker in workers], span, _SAMPLE_BUCKETS),
        sample_width_s=span.seconds / _SAMPLE_BUCKETS,
    )
