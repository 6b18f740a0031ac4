"""The progress of a batch. Batches have counters, so that reading it costs the same for ten jobs and for a million."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from sqlalchemy import Row, Select, func, select
from sqlalchemy.orm import Session

from docmill.storage.columns import db_now
from docmill.storage.reads.eta import Eta, Pace, pace_of, recent_attempts
from docmill.storage.states import BatchState, JobState
from docmill.storage.tables import Attempt, Batch, Document, Job


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """The progress of a batch. Times are seconds since 1970, durations seconds, rates tokens per second.

    `tokens_per_s` counts prompt and completion tokens of the last two minutes (twenty if few jobs ended in two), or of
    the whole batch once it has ended; None before anything is measured. `eta` is None while it is unknown. Token
    counts are those computed for this batch: results that were reused add none.
    """

    id: str
    state: BatchState
    model: str
    task: str
    metadata: Mapping[str, str]
    priority: int
    documents_total: int
    documents_open: int
    documents_failed: int
    jobs_total: int
    jobs_by_state: Mapping[JobState, int]
    jobs_reused: int
    tokens_planned: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    tokens_per_s: float | None
    elapsed_s: float
    eta: Eta | None
    created_at: float
    in_progress_at: float | None
    ended_at: float | None
    paused_at: float | None
    error: str | None

    @property
    def jobs_ended(self) -> int:
        """Jobs in a terminal state."""
        return sum(count for state, count in self.jobs_by_state.items() if state.is_terminal)

    @property
    def jobs_failed(self) -> int:
        """Jobs that failed for good."""
        return self.jobs_by_state[JobState.FAILED]

    @property
    def documents_ended(self) -> int:
        """Documents that are done, failed, cancelled or expired."""
        return self.documents_total - self.documents_open

    @property
    def eta_s(self) -> float | None:
        """Estimated seconds left; None while they are unknown."""
        return None if self.eta is None else self.eta.seconds

    @property
    def average_tokens_per_s(self) -> float | None:
        """The mean rate since the first job could run."""
        working_s = self.created_at + self.elapsed_s - (self.in_progress_at or self.created_at)
        tokens = self.prompt_tokens + self.completion_tokens
        return tokens / working_s if tokens and working_s > 0 else None


_STORED = [field.name for field in fields(BatchStatus) if field.name in Batch.__mapper__.columns]


def batches_now() -> Select[Batch, float]:
    """Selects batches, each with the database's current time."""
    return select(Batch, db_now().label("now"))


def status_of(session: Session, row: Row[Batch, float]) -> BatchStatus:
    """The status of a row of `batches_now`."""
    batch, now = row
    running = session.execute(
        select(func.count()).where(Job.batch_id == batch.id, Job.state == JobState.RUNNING)
    ).scalar_one()
    ended = {
        JobState.SUCCEEDED: batch.jobs_succeeded,
        JobState.FAILED: batch.jobs_failed,
        JobState.CANCELLED: batch.jobs_cancelled,
        JobState.EXPIRED: batch.jobs_expired,
    }
    queued = max(0, batch.jobs_total - running - sum(ended.values()))
    ended_at = batch.completed_at or batch.cancelled_at or batch.expired_at or batch.failed_at
    ended_at = ended_at if batch.state.is_terminal else None
    if ended_at is None:
        began_at = batch.in_progress_at or batch.created_at
        attempts = recent_attempts(session, [batch.model], now, Job.batch_id == batch.id)
        pace = pace_of(attempts, began_at, now)
        rate, eta = pace.tokens_per_s, _eta(batch, pace)
    else:
        rate, eta = _tokens_per_s(session, batch, ended_at), None
    return BatchStatus(
        **{name: getattr(batch, name) for name in _STORED},
        metadata=batch.notes,
        jobs_by_state={JobState.QUEUED: queued, JobState.RUNNING: running} | ended,
        tokens_per_s=rate,
        elapsed_s=max(0.0, (ended_at or now) - batch.created_at),
        eta=eta,
        ended_at=ended_at,
    )


def _tokens_per_s(session: Session, batch: Batch, ended_at: float) -> float | None:
    """The mean rate of a batch that has ended, from the start of its first job."""
    began_at = _first_started_at(session, batch.id)
    tokens = batch.prompt_tokens + batch.completion_tokens
    return tokens / (ended_at - began_at) if tokens and began_at and ended_at > began_at else None


def _first_started_at(session: Session, batch_id: str) -> float | None:
    """When the first job of the first document started; found by indexes, whatever the batch's size."""
    return session.scalar(
        select(func.min(Attempt.started_at))
        .join(Job, Job.id == Attempt.job_id)
        .join(Document, Document.id == Job.document_id)
        .where(Document.batch_id == batch_id, Document.position == 0, Job.level == 0, Job.position == 0)
    )


def _eta(batch: Batch, pace: Pace) -> Eta | None:
    """The time for the jobs left, if each takes as many tokens as the finished ones took on average."""
    ended = batch.jobs_succeeded + batch.jobs_failed + batch.jobs_cancelled + batch.jobs_expired
    computed = batch.jobs_succeeded - batch.jobs_reused
    if not computed or batch.paused_at is not None:
        return None
    tokens_per_job = (batch.prompt_tokens + batch.completion_tokens) / computed
    return pace.eta((batch.jobs_total - ended) * tokens_per_job)
