"""How far a batch is. Batches carry their own counters, so this costs the same at ten jobs and at a million."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Row, Select, func, select
from sqlalchemy.orm import Session

from docmill.settings.defaults import RECENT_S
from docmill.storage.columns import db_now
from docmill.storage.states import AttemptOutcome, BatchState, JobState
from docmill.storage.tables import Attempt, Batch, Document, Job


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """How far a batch is. Times are seconds since 1970, durations seconds, rates tokens a second.

    `tokens_per_s` counts prompt and completion tokens of the last two minutes, or of the whole batch once it has
    ended; None before anything is measured. `eta_s` is None where it is not known. The tokens are those computed for
    this batch: the `jobs_reused` cost none.
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
    eta_s: float | None
    created_at: float
    in_progress_at: float | None
    ended_at: float | None
    paused_at: float | None
    error: str | None

    @property
    def jobs_ended(self) -> int:
        """Jobs in a terminal state."""
        return sum(count for state, count in self.jobs_by_state.items() if state.is_terminal)


def batches_now() -> Select[Batch, float]:
    """Batches, each with the database's time."""
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
    rate = _tokens_per_s(session, batch, now, ended_at)
    return BatchStatus(
        id=batch.id,
        state=batch.state,
        model=batch.model,
        task=batch.task,
        metadata=batch.notes,
        priority=batch.priority,
        documents_total=batch.documents_total,
        documents_open=batch.documents_open,
        documents_failed=batch.documents_failed,
        jobs_total=batch.jobs_total,
        jobs_by_state={JobState.QUEUED: queued, JobState.RUNNING: running} | ended,
        jobs_reused=batch.jobs_reused,
        tokens_planned=batch.tokens_planned,
        prompt_tokens=batch.prompt_tokens,
        cached_tokens=batch.cached_tokens,
        completion_tokens=batch.completion_tokens,
        tokens_per_s=rate,
        elapsed_s=max(0.0, (ended_at or now) - batch.created_at),
        eta_s=None if ended_at else _eta_s(batch, rate),
        created_at=batch.created_at,
        in_progress_at=batch.in_progress_at,
        ended_at=ended_at,
        paused_at=batch.paused_at,
        error=batch.error,
    )


def _tokens_per_s(session: Session, batch: Batch, now: float, ended_at: float | None) -> float | None:
    """Measured: of the last two minutes while it runs, of its whole working time once it has ended."""
    if ended_at is not None:
        began_at = _first_started_at(session, batch.id)
        tokens = batch.prompt_tokens + batch.completion_tokens
        return tokens / (ended_at - began_at) if tokens and began_at and ended_at > began_at else None
    since = max(batch.in_progress_at or batch.created_at, now - RECENT_S)
    recent, first = session.execute(
        select(
            func.sum(Attempt.prompt_tokens + Attempt.completion_tokens),
            func.min(Attempt.started_at),
        )
        .join(Job, Job.id == Attempt.job_id)
        .where(
            Attempt.model == batch.model,
            Attempt.finished_at >= since,
            Attempt.outcome == AttemptOutcome.SUCCEEDED,
            Job.batch_id == batch.id,
        )
    ).one()
    return recent / (now - max(first, since)) if recent and now > max(first, since) else None


def _first_started_at(session: Session, batch_id: str) -> float | None:
    """When the first job of the first document began: found by indexes, whatever the batch's size."""
    return session.scalar(
        select(func.min(Attempt.started_at))
        .join(Job, Job.id == Attempt.job_id)
        .join(Document, Document.id == Job.document_id)
        .where(Document.batch_id == batch_id, Document.position == 0, Job.level == 0, Job.position == 0)
    )


def _eta_s(batch: Batch, rate: float | None) -> float | None:
    """The jobs left, each taking the tokens that the finished ones took on average, at the measured rate."""
    ended = batch.jobs_succeeded + batch.jobs_failed + batch.jobs_cancelled + batch.jobs_expired
    computed = batch.jobs_succeeded - batch.jobs_reused
    if not rate or not computed or batch.paused_at is not None:
        return None
    used = (batch.prompt_tokens + batch.completion_tokens) / computed
    return (batch.jobs_total - ended) * used / rate
