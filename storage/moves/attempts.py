"""What a claim hands out, what its attempt leaves behind, and the rows that say so.

Each function here is a part of a move of `docmill.storage.moves.jobs`, in its transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Table, bindparam, func, insert, select, update
from sqlalchemy.orm import Session

from docmill.storage.attempt_metrics import METRIC_TYPES, AttemptMetrics
from docmill.storage.columns import db_now, greatest
from docmill.storage.moves.counters import end_attempts
from docmill.storage.states import AttemptOutcome
from docmill.storage.tables import Attempt, Batch, Document, Job, Result


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """Who claims: stored with every attempt."""

    name: str
    engine: str
    model: str


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A running job, as its worker holds it. `failures` counts the attempts charged to it so far, `deaths` those
    among them under which the engine process died."""

    id: int
    epoch: int
    batch_id: str
    document_id: int
    level: int
    position: int
    prompt_ids: Sequence[int]
    prompt_tokens: int
    max_tokens: int
    sampling: dict[str, Any]
    stop_token_ids: Sequence[int]
    failures: int
    deaths: int
    reuse_key: str | None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed: a short kind to count by, and the whole reason."""

    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class ReusedJob:
    """A job that ended at its claim: an equal job's text is its result."""

    id: int
    reused_from: int


def begin_attempt(session: Session, job: ClaimedJob, worker: WorkerIdentity) -> None:
    """Note a claim; what an earlier worker left running is lost."""
    if job.epoch > 1:
        end_attempts(session, Attempt.job_id == job.id, AttemptOutcome.LOST)
    session.execute(
        _BEGIN,
        {
            "job_id": job.id,
            "epoch": job.epoch,
            "worker": worker.name,
            "engine": worker.engine,
            "model": worker.model,
            "prompt_tokens": job.prompt_tokens,
            "of_job": job.id,
            "before": job.epoch - 1,
        },
    )


def store_result(session: Session, job: ClaimedJob, **values: Any) -> None:
    """Store the text of a job that has just succeeded; `values` are the other columns of `results`."""
    row = {"document_id": job.document_id, "job_id": job.id, "level": job.level, "position": job.position}
    session.execute(_STORE_RESULT, row | values)


def count_succeeded(
    session: Session, job: ClaimedJob, *, prompt: int = 0, cached: int = 0, completion: int = 0, reused: int = 0
) -> None:
    """Count a job that has just succeeded on its document and its batch, with the tokens computed for it."""
    session.execute(_COUNT_DOCUMENT, {"document": job.document_id})
    counted = {"batch": job.batch_id, "prompt": prompt, "cached": cached, "completion": completion, "reused": reused}
    session.execute(_COUNT_BATCH, counted)


def end_attempt(
    session: Session,
    job: ClaimedJob,
    outcome: AttemptOutcome,
    metrics: AttemptMetrics | None = None,
    failure: Failure | None = None,
) -> None:
    """End the attempt unless it has ended; one that was given up as lost may still say what it did."""
    values: dict[str, Any] = {"outcome": outcome}
    if metrics is not None:
        values |= {name: getattr(metrics, name) for name in METRIC_TYPES}
    if failure is not None:
        values |= {"error_kind": failure.kind, "error": failure.message}
    session.execute(_END, {"of_job": job.id, "of_epoch": job.epoch} | values)


# Built once, and on the tables: building a statement takes longer than running it, and every job needs each of these.
_ATTEMPTS, _RESULTS = cast(Table, Attempt.__table__), cast(Table, Result.__table__)
_DOCUMENTS, _BATCHES = cast(Table, Document.__table__), cast(Table, Batch.__table__)
_JOBS = cast(Table, Job.__table__)
_LEFT_AT = (
    select(_ATTEMPTS.c.finished_at)
    .where(_ATTEMPTS.c.job_id == bindparam("of_job"), _ATTEMPTS.c.epoch == bindparam("before"))
    .scalar_subquery()
)
# Since the job was written, became due after its last failure, or was put back by its last attempt.
_WAITED_S = (
    select(greatest(0.0, db_now() - greatest(_JOBS.c.created_at, _JOBS.c.not_before, func.coalesce(_LEFT_AT, 0.0))))
    .where(_JOBS.c.id == bindparam("of_job"))
    .scalar_subquery()
)
_BEGIN = insert(_ATTEMPTS).values(outcome=AttemptOutcome.RUNNING, started_at=db_now(), waited_s=_WAITED_S)
_END = (
    update(_ATTEMPTS)
    .where(
        _ATTEMPTS.c.job_id == bindparam("of_job"),
        _ATTEMPTS.c.epoch == bindparam("of_epoch"),
        _ATTEMPTS.c.outcome.in_((AttemptOutcome.RUNNING, AttemptOutcome.LOST)),
    )
    .values(finished_at=db_now())
)
_STORE_RESULT = insert(_RESULTS).values(final=False, created_at=db_now())
_COUNT_DOCUMENT = (
    update(_DOCUMENTS).where(_DOCUMENTS.c.id == bindparam("document")).values(open_jobs=_DOCUMENTS.c.open_jobs - 1)
)
_COUNT_BATCH = (
    update(_BATCHES)
    .where(_BATCHES.c.id == bindparam("batch"))
    .values(
        jobs_succeeded=_BATCHES.c.jobs_succeeded + 1,
        jobs_reused=_BATCHES.c.jobs_reused + bindparam("reused"),
        prompt_tokens=_BATCHES.c.prompt_tokens + bindparam("prompt"),
        cached_tokens=_BATCHES.c.cached_tokens + bindparam("cached"),
        completion_tokens=_BATCHES.c.completion_tokens + bindparam("completion"),
    )
)
