"""What a worker does with jobs: claim, heartbeat, complete, retry, release, fail; one transaction each.

Every change is one UPDATE from an expected state. A claim increments the job's `epoch`, and every later change names
it (fencing): a worker whose lease has expired, and whose job another worker has claimed, changes nothing.
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
from docmill.storage.moves import reuse
from docmill.storage.moves.attempts import (
    ClaimedJob,
    Failure,
    ReusedJob,
    WorkerIdentity,
    begin_attempt,
    end_attempt,
    store_result,
)
from docmill.storage.moves.counters import count_failed, count_succeeded, lock_jobs
from docmill.storage.states import AttemptOutcome, JobState
from docmill.storage.tables import Job


class Jobs:
    """The changes that one worker makes to jobs. A lease lasts `lease_s` seconds and is renewed by `heartbeat`."""

    def __init__(self, database: Database, worker: WorkerIdentity, *, lease_s: float) -> None:
        self._database = database
        self._worker = worker
        self._lease_s = lease_s

    def claim(self, job_id: int) -> ClaimedJob | ReusedJob | None:
        """Claim a queued job, or a running one whose lease has expired. If an identical job has succeeded, reuse it.

        None: another worker has the job, it has ended, its batch is paused, or an identical job is running.
        """
        with self._database.write() as session:
            facts = reuse.claim_facts(session, job_id)
            if facts is None or facts.is_paused:
                return None
            equal = None
            if facts.reuse_key is not None:
                reuse.lock_key(session, facts.reuse_key)
                # In this order: on Postgres a running job may succeed in between, and then the second query finds it.
                one_runs = reuse.equal_is_running(session, job_id, facts.reuse_key, facts.max_tokens)
                equal = reuse.equal_result(session, facts.reuse_key, facts.max_tokens)
                if equal is None and one_runs:
                    reuse.wait_for_equal(session, job_id, delay_s=self._lease_s)
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
        begin_attempt(session, job, worker)
        return job

    def _reuse(self, session: Session, job: ClaimedJob, equal: reuse.EqualResult) -> None:
        self._succeed(session, job)
        store_result(
            session, job, text=equal.text, finish_reason=equal.finish_reason, prompt_tokens=equal.prompt_tokens,
            completion_tokens=equal.completion_tokens, reused_from=equal.job_id,
        )  # fmt: skip
        end_attempt(session, job, AttemptOutcome.REUSED)
        count_succeeded(session, job.batch_id, job.document_id, reused=1)

    def heartbeat(self, held: Iterable[ClaimedJob]) -> set[tuple[int, int]]:
        """Renew the leases of the held jobs in one UPDATE. Returns (id, epoch) of those this worker still holds.

        The others were cancelled, expired or claimed by another worker: stop working on them.
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
        """Store the result and count the job as succeeded, in one transaction. False: fenced out, nothing stored."""
        with self._database.write() as session:
            if not self._succeed(session, job):
                end_attempt(session, job, AttemptOutcome.FENCED, generated)
                return False
            store_result(
                session, job, text=generated.text, finish_reason=str(generated.finish_reason),
                prompt_tokens=generated.prompt_tokens, completion_tokens=generated.completion_tokens,
            )  # fmt: skip
            end_attempt(session, job, AttemptOutcome.SUCCEEDED, generated)
            reuse.wake_waiting(session, job.reuse_key)
            count_succeeded(
                session, job.batch_id, job.document_id, prompt=generated.prompt_tokens,
                cached=generated.cached_tokens or 0, completion=generated.completion_tokens,
            )  # fmt: skip
            return True

    def retry(self, job: ClaimedJob, failure: Failure, *, delay_s: float, deaths: int = 0) -> bool:
        """Count the attempt as failed and queue the job again after `delay_s` seconds. False: fenced out.

        `deaths` is 1 if the engine process died.
        """
        return self._requeue(
            job, AttemptOutcome.FAILED, failure,
            failures=Job.failures + 1, deaths=Job.deaths + deaths, not_before=db_now() + delay_s,
        )  # fmt: skip

    def release(self, job: ClaimedJob) -> bool:
        """Queue the job again without counting the attempt, because the worker is stopping. False: fenced out."""
        return self._requeue(job, AttemptOutcome.RELEASED, None)

    def fail(self, job: ClaimedJob, failure: Failure, *, deaths: int = 0) -> bool:
        """Set the job to `failed`. `deaths` is 1 if the engine process died. False: fenced out."""
        with self._database.write() as session:
            ended = self._move(
                session, job, AttemptOutcome.FAILED, failure,
                state=JobState.FAILED, finished_at=db_now(), failures=Job.failures + 1, deaths=Job.deaths + deaths,
            )  # fmt: skip
            if ended:
                count_failed(session, [(job.batch_id, job.document_id)])
            return ended

    def _requeue(self, job: ClaimedJob, outcome: AttemptOutcome, failure: Failure | None, **values: Any) -> bool:
        with self._database.write() as session:
            return self._move(
                session, job, outcome, failure,
                state=JobState.QUEUED, owner=None, published_at=None, publishes=0, **values,
            )  # fmt: skip

    def _move(
        self, session: Session, job: ClaimedJob, outcome: AttemptOutcome, failure: Failure | None, **values: Any
    ) -> bool:
        """Take the job out of `running` without a result, and end its attempt. False: fenced out."""
        values |= {
            "lease_until": None,
            "error_kind": failure.kind if failure else None,
            "error": failure.message if failure else None,
        }
        moved = session.execute(update(Job).where(_is_held(job)).values(**values).returning(Job.id)).one_or_none()
        end_attempt(session, job, outcome if moved else AttemptOutcome.FENCED, failure=failure)
        if moved is None:
            return False
        reuse.wake_waiting(session, job.reuse_key)
        return True

    @staticmethod
    def _succeed(session: Session, job: ClaimedJob) -> bool:
        held = {"job_id": job.id, "held_epoch": job.epoch}
        return session.execute(_SUCCEED, held).one_or_none() is not None


def _is_held(job: ClaimedJob) -> ColumnElement[bool]:
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
