"""A job's life in transactions: claim, heartbeat, complete, fail, release.

Every move is one UPDATE from an expected state. A claim raises the job's `epoch`; all later moves name it, so a
worker whose lease ran out finds no row and stops quietly.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any, cast

from sqlalchemy import ColumnElement, Table, and_, bindparam, case, or_, tuple_, update
from sqlalchemy.orm import Session

from docmill.storage.attempt_metrics import GeneratedText
from docmill.storage.columns import db_now
from docmill.storage.database import Database
from docmill.storage.moves.attempts import (
    ClaimedJob,
    Failure,
    ReusedJob,
    WorkerIdentity,
    begin_attempt,
    count_succeeded,
    end_attempt,
    store_result,
)
from docmill.storage.moves.counters import count_failed, lock_jobs
from docmill.storage.moves.reuse import (
    EqualResult,
    equal_is_running,
    equal_result,
    hold_key,
    look_at,
    wait_for_equal,
    wake_equals,
)
from docmill.storage.states import AttemptOutcome, JobState
from docmill.storage.tables import Job


class Jobs:
    """One worker's hand on the jobs table."""

    def __init__(self, database: Database, worker: WorkerIdentity, *, lease_s: float) -> None:
        self._database = database
        self._worker = worker
        self._lease_s = lease_s

    def claim(self, job_id: int) -> ClaimedJob | ReusedJob | None:
        """Take a queued job, or a running one whose lease ran out; where an equal job has succeeded, end it so.

        None: somebody else has it, it ended, its batch is paused, or an equal one runs.
        """
        with self._database.write() as session:
            seen = look_at(session, job_id)
            if seen is None or seen.is_paused:
                return None
            equal = None
            if seen.reuse_key is not None:
                hold_key(session, seen.reuse_key)
                # In this order: on Postgres one that runs may succeed between two looks, and is found by the second.
                one_runs = equal_is_running(session, job_id, seen.reuse_key, seen.max_tokens)
                equal = equal_result(session, seen.reuse_key, seen.max_tokens)
                if equal is None and one_runs:
                    wait_for_equal(session, job_id, delay_s=self._lease_s)
                    return None
            job = self._take(session, job_id)
            if job is None or equal is None:
                return job
            self._reuse(session, job, equal)
            return ReusedJob(job.id, equal.job_id)

    def _take(self, session: Session, job_id: int) -> ClaimedJob | None:
        worker = self._worker
        taken = {"job_id": job_id, "worker": worker.name, "serves": worker.model, "lease_s": self._lease_s}
        row = session.execute(_TAKE, taken).one_or_none()
        if row is None:
            return None
        job = ClaimedJob(**row._asdict())
        begin_attempt(session, job, self._worker)
        return job

    def _reuse(self, session: Session, job: ClaimedJob, equal: EqualResult) -> None:
        self._succeed(session, job)
        store_result(
            session, job, text=equal.text, finish_reason=equal.finish_reason, prompt_tokens=equal.prompt_tokens,
            completion_tokens=equal.completion_tokens, reused_from=equal.job_id,
        )  # fmt: skip
        end_attempt(session, job, AttemptOutcome.REUSED)
        count_succeeded(session, job, reused=1)

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

    def complete(self, job: ClaimedJob, generated: GeneratedText) -> bool:
        """Store the result and count the document down, in one transaction. False: fenced out, nothing stored."""
        with self._database.write() as session:
            if not self._succeed(session, job):
                end_attempt(session, job, AttemptOutcome.FENCED, generated)
                return False
            store_result(
                session, job, text=generated.text, finish_reason=str(generated.finish_reason),
                prompt_tokens=generated.prompt_tokens, completion_tokens=generated.completion_tokens,
            )  # fmt: skip
            end_attempt(session, job, AttemptOutcome.SUCCEEDED, generated)
            wake_equals(session, job.reuse_key)
            count_succeeded(
                session, job, prompt=generated.prompt_tokens, cached=generated.cached_tokens or 0,
                completion=generated.completion_tokens,
            )  # fmt: skip
            return True

    def retry(self, job: ClaimedJob, failure: Failure, *, delay_s: float, deaths: int = 0) -> bool:
        """Charge the attempt and queue the job again, not before `delay_s` from now. False: fenced out.

        `deaths` is 1 where the engine process died of it.
        """
        with self._database.write() as session:
            return self._requeue(
                session, job, AttemptOutcome.FAILED, failure,
                failures=Job.failures + 1, deaths=Job.deaths + deaths, not_before=db_now() + delay_s,
            )  # fmt: skip

    def release(self, job: ClaimedJob) -> bool:
        """Put the job back unharmed: its worker stops. Costs no attempt. False: fenced out."""
        with self._database.write() as session:
            return self._requeue(session, job, AttemptOutcome.RELEASED, None)

    def fail(self, job: ClaimedJob, failure: Failure, *, deaths: int = 0) -> bool:
        """End the job as failed for good. False: fenced out."""
        with self._database.write() as session:
            ended = self._finish(
                session, job, state=JobState.FAILED, failures=Job.failures + 1, deaths=Job.deaths + deaths,
                error_kind=failure.kind, error=failure.message,
            )  # fmt: skip
            end_attempt(session, job, AttemptOutcome.FAILED if ended else AttemptOutcome.FENCED, failure=failure)
            if ended:
                wake_equals(session, job.reuse_key)
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
        end_attempt(session, job, outcome if moved else AttemptOutcome.FENCED, failure=failure)
        if moved is not None:
            wake_equals(session, job.reuse_key)
        return moved is not None

    def _succeed(self, session: Session, job: ClaimedJob) -> bool:
        held = {"job_id": job.id, "held_epoch": job.epoch}
        return session.execute(_SUCCEED, held).one_or_none() is not None

    def _finish(self, session: Session, job: ClaimedJob, **values: Any) -> bool:
        statement = (
            update(Job).where(_held(job)).values(lease_until=None, finished_at=db_now(), **values).returning(Job.id)
        )
        return session.execute(statement).one_or_none() is not None


def _held(job: ClaimedJob) -> ColumnElement[bool]:
    return and_(Job.id == job.id, Job.epoch == job.epoch, Job.state == JobState.RUNNING)


# Built once, and on the table: building a statement takes longer than running it, and every job needs both.
_JOBS = cast(Table, Job.__table__)
_TAKE = (
    update(_JOBS)
    .where(
        _JOBS.c.id == bindparam("job_id"),
        _JOBS.c.model == bindparam("serves"),
        or_(
            and_(_JOBS.c.state == JobState.QUEUED, _JOBS.c.not_before <= db_now()),
            and_(_JOBS.c.state == JobState.RUNNING, _JOBS.c.lease_until < db_now()),
        ),
    )
    .values(
        state=JobState.RUNNING,
        owner=bindparam("worker"),
        epoch=_JOBS.c.epoch + 1,
        losses=_JOBS.c.losses + case((_JOBS.c.state == JobState.RUNNING, 1), else_=0),
        lease_until=db_now() + bindparam("lease_s"),
    )
    .returning(*(_JOBS.c[field.name] for field in fields(ClaimedJob)))
)
_SUCCEED = (
    update(_JOBS)
    .where(
        _JOBS.c.id == bindparam("job_id"),
        _JOBS.c.epoch == bindparam("held_epoch"),
        _JOBS.c.state == JobState.RUNNING,
    )
    .values(state=JobState.SUCCEEDED, lease_until=None, finished_at=db_now(), error_kind=None, error=None)
    .returning(_JOBS.c.id)
)
