"""What a claim hands out, what its attempt leaves behind, and the rows that say so.

Each function here is a part of a move of `storage.jobs`, in its transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ScalarSelect, func, insert, select, update
from sqlalchemy.orm import Session

from storage.columns import db_now, greatest
from storage.moves import end_attempts
from storage.states import AttemptOutcome
from storage.tables import Attempt, Batch, Document, Job, Result


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
class Generated:
    """What an attempt produced and measured; the columns of `results` and `attempts`."""

    text: str
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int | None
    completion_tokens: int
    queue_s: float
    prefill_s: float
    decode_s: float
    batch_size: float
    peak_memory_bytes: int
    peak_vram_bytes: int | None = None
    energy_j: float | None = None


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
        insert(Attempt).values(
            job_id=job.id,
            epoch=job.epoch,
            outcome=AttemptOutcome.RUNNING,
            worker=worker.name,
            engine=worker.engine,
            model=worker.model,
            started_at=db_now(),
            waited_s=_waited_s(job),
            prompt_tokens=job.prompt_tokens,
        )
    )


def _waited_s(job: ClaimedJob) -> ScalarSelect[float]:
    """Since the job was written, became due after its last failure, or was put back by its last attempt."""
    before = select(Attempt.finished_at).where(Attempt.job_id == job.id, Attempt.epoch == job.epoch - 1)
    ready_at = greatest(Job.created_at, Job.not_before, func.coalesce(before.scalar_subquery(), 0.0))
    return select(greatest(0.0, db_now() - ready_at)).where(Job.id == job.id).scalar_subquery()


def store_result(session: Session, job: ClaimedJob, **values: Any) -> None:
    """Store the text of a job that has just succeeded; `values` are the other columns of `results`."""
    session.execute(
        insert(Result).values(
            document_id=job.document_id,
            job_id=job.id,
            level=job.level,
            position=job.position,
            final=False,
            created_at=db_now(),
            **values,
        )
    )


def count_succeeded(session: Session, job: ClaimedJob, **counters: Any) -> None:
    """Count a job that has just succeeded on its document and its batch, with the batch's other `counters`."""
    session.execute(update(Document).where(Document.id == job.document_id).values(open_jobs=Document.open_jobs - 1))
    session.execute(
        update(Batch).where(Batch.id == job.batch_id).values(jobs_succeeded=Batch.jobs_succeeded + 1, **counters)
    )


def end_attempt(
    session: Session,
    job: ClaimedJob,
    outcome: AttemptOutcome,
    generated: Generated | None = None,
    failure: Failure | None = None,
) -> None:
    """End the attempt unless it has ended; one that was given up as lost may still say what it did."""
    values: dict[str, Any] = {"outcome": outcome, "finished_at": db_now()}
    if generated is not None:
        values |= {
            name: getattr(generated, name)
            for name in (
                "queue_s", "prefill_s", "decode_s", "prompt_tokens", "cached_tokens", "completion_tokens",
                "batch_size", "peak_memory_bytes", "peak_vram_bytes", "energy_j",
            )
        }  # fmt: skip
    if failure is not None:
        values |= {"error_kind": failure.kind, "error": failure.message}
    unended = Attempt.outcome.in_((AttemptOutcome.RUNNING, AttemptOutcome.LOST))
    session.execute(
        update(Attempt).where(Attempt.job_id == job.id, Attempt.epoch == job.epoch, unended).values(**values)
    )
