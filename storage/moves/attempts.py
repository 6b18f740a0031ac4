"""The rows of attempts and results, written as part of a job's transaction in `docmill.storage.moves.jobs`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import ColumnElement, Table, bindparam, func, insert, select, update
from sqlalchemy.orm import Session

from docmill.storage.attempt_metrics import METRIC_TYPES, AttemptMetrics
from docmill.storage.columns import db_now, greatest
from docmill.storage.states import AttemptOutcome
from docmill.storage.tables import Attempt, Job, Result


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """The worker that claims a job; stored with every attempt."""

    name: str
    engine: str
    model: str


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A running job, as its worker holds it. The fields are columns of the table `jobs`."""

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
    """Why an attempt failed: a short kind to group by, and the full message."""

    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class ReusedJob:
    """A job that succeeded when it was claimed, with the result of the identical job `reused_from`."""

    id: int
    reused_from: int


def begin_attempt(session: Session, job: ClaimedJob, worker: WorkerIdentity) -> None:
    """Store a new attempt. Earlier attempts that still count as running are lost."""
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


def end_attempt(
    session: Session,
    job: ClaimedJob,
    outcome: AttemptOutcome,
    metrics: AttemptMetrics | None = None,
    failure: Failure | None = None,
) -> None:
    """End the job's attempt unless it has ended. An attempt that was given up as lost may still report its outcome."""
    values: dict[str, Any] = {"outcome": outcome}
    if metrics is not None:
        values |= {name: getattr(metrics, name) for name in METRIC_TYPES}
    if failure is not None:
        values |= {"error_kind": failure.kind, "error": failure.message}
    session.execute(_END, {"of_job": job.id, "of_epoch": job.epoch} | values)


def end_attempts(session: Session, which: ColumnElement[bool], outcome: AttemptOutcome) -> None:
    """End the matching attempts that are running, on behalf of workers that will not end them."""
    session.execute(
        update(Attempt)
        .where(which, Attempt.outcome == AttemptOutcome.RUNNING)
        .values(outcome=outcome, finished_at=db_now())
    )


def store_result(session: Session, job: ClaimedJob, **values: Any) -> None:
    """Store the text of a job that has just succeeded; `values` are the other columns of `results`."""
    row = {"document_id": job.document_id, "job_id": job.id, "level": job.level, "position": job.position}
    session.execute(_STORE_RESULT, row | values)


# Built once, and on the tables: building a statement takes longer than running it, and every job needs all of them.
_ATTEMPTS, _RESULTS, _JOBS = (cast(Table, table.__table__) for table in (Attempt, Result, Job))
_PREVIOUS_ATTEMPT_FINISHED_AT = (
    select(_ATTEMPTS.c.finished_at)
    .where(_ATTEMPTS.c.job_id == bindparam("of_job"), _ATTEMPTS.c.epoch == bindparam("before"))
    .scalar_subquery()
)
# The job could have run since it was created, since its retry delay ended, or since its last attempt put it back.
_RUNNABLE_SINCE = greatest(_JOBS.c.created_at, _JOBS.c.not_before, func.coalesce(_PREVIOUS_ATTEMPT_FINISHED_AT, 0.0))
_WAITED_S = select(greatest(0.0, db_now() - _RUNNABLE_SINCE)).where(_JOBS.c.id == bindparam("of_job")).scalar_subquery()
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
