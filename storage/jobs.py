"""A job's life in transactions: claim, heartbeat, complete, fail, release.

Every move is one UPDATE from an expected state. A claim raises the job's `epoch`; all later moves name it, so a
worker whose lease ran out finds no row and stops quietly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, case, insert, or_, tuple_, update
from sqlalchemy.orm import Session

from storage.columns import db_now
from storage.database import Database
from storage.moves import count_failed, end_attempts, lock_jobs
from storage.states import AttemptOutcome, JobState
from storage.tables import Attempt, Batch, Document, Job, Result


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """Who claims: stored with every attempt."""

    name: str
    engine: str
    model: str


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A running job, as its worker holds it. `failures` counts the attempts charged to it so far."""

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


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed: a short kind to count by, and the whole reason."""

    kind: str
    message: str


class Jobs:
    """One worker's hand on the jobs table."""

    def __init__(self, database: Database, worker: WorkerIdentity, *, lease_s: float) -> None:
        self._database = database
        self._worker = worker
        self._lease_s = lease_s

    def claim(self, job_id: int) -> ClaimedJob | None:
        """Take a queued job, or a running one whose lease ran out. None: somebody else has it, or it ended."""
        claimable = or_(
            and_(Job.state == JobState.QUEUED, Job.not_before <= db_now()),
            and_(Job.state == JobState.RUNNING, Job.lease_until < db_now()),
        )
        with self._database.write() as session:
            row = session.execute(
                update(Job)
                .where(Job.id == job_id, claimable)
                .values(
                    state=JobState.RUNNING,
                    owner=self._worker.name,
                    epoch=Job.epoch + 1,
                    losses=Job.losses + case((Job.state == JobState.RUNNING, 1), else_=0),
                    lease_until=db_now() + self._lease_s,
                )
                .returning(
                    Job.id, Job.epoch, Job.batch_id, Job.document_id, Job.level, Job.position, Job.prompt_ids,
                    Job.prompt_tokens, Job.max_tokens, Job.sampling, Job.stop_token_ids, Job.failures,
                )
            ).one_or_none()  # fmt: skip
            if row is None:
                return None
            job = ClaimedJob(**row._asdict())
            if job.epoch > 1:
                end_attempts(session, Attempt.job_id == job.id, AttemptOutcome.LOST)
            session.execute(
                insert(Attempt).values(
                    job_id=job.id,
                    epoch=job.epoch,
                    outcome=AttemptOutcome.RUNNING,
                    worker=self._worker.name,
                    engine=self._worker.engine,
                    model=self._worker.model,
                    started_at=db_now(),
                    prompt_tokens=job.prompt_tokens,
                )
            )
            return job

    def heartbeat(self, held: Iterable[ClaimedJob]) -> set[tuple[int, int]]:
        """Renew the leases of the held jobs in one UPDATE; return the (id, epoch) pairs that are still ours.

        What is missing was cancelled, expired or taken over: its worker must stop working on it.
        """
        pairs = sorted((job.id, job.epoch) for job in held)
        if not pairs:
            return set()
        mine = and_(Job.id.in_([job_id for job_id, _ in pairs]), tuple_(Job.id, Job.epoch).in_(pairs))
        with self._database.write() as session:
            lock_jobs(session, mine)
            rows = session.execute(
                update(Job)
                .where(mine, Job.state == JobState.RUNNING)
                .values(lease_until=db_now() + self._lease_s)
                .returning(Job.id, Job.epoch)
            )
            return {(row.id, row.epoch) for row in rows}

    def complete(self, job: ClaimedJob, generated: Generated) -> bool:
        """Store the result and count the document down, in one transaction. False: fenced out, nothing stored."""
        with self._database.write() as session:
            if not self._finish(session, job, state=JobState.SUCCEEDED, error_kind=None, error=None):
                _end_attempt(session, job, AttemptOutcome.FENCED, generated)
                return False
            session.execute(
                insert(Result).values(
                    document_id=job.document_id,
                    job_id=job.id,
                    level=job.level,
                    position=job.position,
                    text=generated.text,
                    finish_reason=generated.finish_reason,
                    prompt_tokens=generated.prompt_tokens,
                    completion_tokens=generated.completion_tokens,
                    final=False,
                    created_at=db_now(),
                )
            )
            _end_attempt(session, job, AttemptOutcome.SUCCEEDED, generated)
            session.execute(
                update(Document).where(Document.id == job.document_id).values(open_jobs=Document.open_jobs - 1)
            )
            session.execute(
                update(Batch)
                .where(Batch.id == job.batch_id)
                .values(
                    jobs_succeeded=Batch.jobs_succeeded + 1,
                    prompt_tokens=Batch.prompt_tokens + generated.prompt_tokens,
                    cached_tokens=Batch.cached_tokens + (generated.cached_tokens or 0),
                    completion_tokens=Batch.completion_tokens + generated.completion_tokens,
                )
            )
            return True

    def retry(self, job: ClaimedJob, failure: Failure, *, delay_s: float) -> bool:
        """Charge the attempt and queue the job again, not before `delay_s` from now. False: fenced out."""
        with self._database.write() as session:
            return self._requeue(
                session, job, AttemptOutcome.FAILED, failure,
                failures=Job.failures + 1, not_before=db_now() + delay_s,
            )  # fmt: skip

    def release(self, job: ClaimedJob) -> bool:
        """Put the job back unharmed: its worker stops. Costs no attempt. False: fenced out."""
        with self._database.write() as session:
            return self._requeue(session, job, AttemptOutcome.RELEASED, None)

    def fail(self, job: ClaimedJob, failure: Failure) -> bool:
        """End the job as failed for good. False: fenced out."""
        with self._database.write() as session:
            ended = self._finish(
                session, job, state=JobState.FAILED, failures=Job.failures + 1,
                error_kind=failure.kind, error=failure.message,
            )  # fmt: skip
            _end_attempt(session, job, AttemptOutcome.FAILED if ended else AttemptOutcome.FENCED, failure=failure)
            if ended:
                count_failed(session, {(job.batch_id, job.document_id): 1})
            return ended

    def _requeue(
        self,
        session: Session,
        job: ClaimedJob,
        outcome: AttemptOutcome,
        failure: Failure | None,
        **values: Any,
    ) -> bool:
        moved = session.execute(
            update(Job)
            .where(_held(job))
            .values(
                state=JobState.QUEUED,
                owner=None,
                lease_until=None,
                published_at=None,
                publishes=0,
                error_kind=failure.kind if failure else None,
                error=failure.message if failure else None,
                **values,
            )
            .returning(Job.id)
        ).one_or_none()
        _end_attempt(session, job, outcome if moved else AttemptOutcome.FENCED, failure=failure)
        return moved is not None

    def _finish(self, session: Session, job: ClaimedJob, **values: Any) -> bool:
        statement = (
            update(Job).where(_held(job)).values(lease_until=None, finished_at=db_now(), **values).returning(Job.id)
        )
        return session.execute(statement).one_or_none() is not None


def _held(job: ClaimedJob) -> ColumnElement[bool]:
    return and_(Job.id == job.id, Job.epoch == job.epoch, Job.state == JobState.RUNNING)


def _end_attempt(
    session: Session,
    job: ClaimedJob,
    outcome: AttemptOutcome,
    generated: Generated | None = None,
    failure: Failure | None = None,
) -> None:
    values: dict[str, Any] = {"outcome": outcome, "finished_at": db_now()}
    if generated is not None:
        values |= {
            name: getattr(generated, name)
            for name in (
                "queue_s", "prefill_s", "decode_s", "prompt_tokens", "cached_tokens", "completion_tokens",
                "batch_size", "peak_memory_bytes",
            )
        }  # fmt: skip
    if failure is not None:
        values |= {"error_kind": failure.kind, "error": failure.message}
    unended = Attempt.outcome.in_((AttemptOutcome.RUNNING, AttemptOutcome.LOST))
    session.execute(
        update(Attempt).where(Attempt.job_id == job.id, Attempt.epoch == job.epoch, unended).values(**values)
    )
