"""One job from its id to its outcome: claim, generate, complete or fail."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import StrEnum

from docmill.broker.sampling_parameters import Sampling
from docmill.storage.errors import DatabaseUnavailable, StorageError
from docmill.storage.moves.attempts import ClaimedJob, Failure, ReusedJob
from docmill.storage.moves.jobs import Jobs
from docmill.worker.batcher import Batcher
from docmill.worker.crash_and_retry_policy import GiveUp, Retry, RetryPolicy
from docmill.worker.database_retry import DatabaseRetry
from docmill.worker.engines.base import EngineClosed, EngineDied, EngineError, Request, RequestCancelled
from docmill.worker.heartbeat import Heartbeat, request_id_of

log = logging.getLogger(__name__)


class Outcome(StrEnum):
    """The result of handling one message."""

    NOT_OURS = "not ours"  # taken by another worker, ended, or waiting: its batch is paused, or an identical job runs
    NOT_TAKEN = "not taken"  # the worker is shutting down
    DONE = "done"
    REUSED = "reused"  # the result of an identical job
    FENCED = "fenced"  # cancelled, expired or taken over while it ran
    RELEASED = "released"
    RETRIED = "retried"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome, with the reason unless it is a success."""

    outcome: Outcome
    reason: str = ""


def run_job(
    job_id: int, jobs: Jobs, heartbeat: Heartbeat, batcher: Batcher, policy: RetryPolicy, db_retry: DatabaseRetry
) -> Verdict:
    """Run one job. However this ends, the job's row is left in a state from which the job continues."""
    if db_retry.is_closing():
        return Verdict(Outcome.NOT_TAKEN, "the worker is shutting down")
    try:
        job = db_retry.until_closing(jobs.claim, job_id)
    except DatabaseUnavailable as error:
        return Verdict(Outcome.NOT_TAKEN, str(error))
    match job:
        case None:
            return Verdict(Outcome.NOT_OURS)
        case ReusedJob(reused_from=computed):
            return Verdict(Outcome.REUSED, f"of job {computed}")
    with heartbeat.holding(job):
        try:
            return _attempt(job, jobs, batcher, policy, db_retry)
        except StorageError:
            raise  # the lease expires, and another attempt follows
        except Exception as error:
            log.exception("job %d failed with an unexpected error", job.id)
            return _fail(job, jobs, error, policy, db_retry)


def _attempt(job: ClaimedJob, jobs: Jobs, batcher: Batcher, policy: RetryPolicy, db_retry: DatabaseRetry) -> Verdict:
    try:
        completion = batcher.generate(_request(job))
    except EngineClosed as error:
        db_retry.with_deadline(jobs.release, job)
        return Verdict(Outcome.RELEASED, str(error))
    except RequestCancelled as error:
        db_retry.with_deadline(jobs.release, job)  # does nothing if the job is no longer ours
        return Verdict(Outcome.FENCED, str(error))
    except EngineError as error:
        return _fail(job, jobs, error, policy, db_retry)
    if not db_retry.with_deadline(jobs.complete, job, completion):
        return Verdict(Outcome.FENCED, "it was cancelled, expired or taken over while it ran")
    return Verdict(Outcome.DONE)


def _fail(job: ClaimedJob, jobs: Jobs, error: Exception, policy: RetryPolicy, db_retry: DatabaseRetry) -> Verdict:
    deaths = 1 if isinstance(error, EngineDied) else 0
    match policy.decide(error, job.failures, job.deaths):
        case Retry(delay_s):
            failure = Failure(type(error).__name__, str(error))
            db_retry.with_deadline(jobs.retry, job, failure, delay_s=delay_s, deaths=deaths)
            return Verdict(Outcome.RETRIED, str(error))
        case GiveUp(kind):
            db_retry.with_deadline(jobs.fail, job, Failure(kind, str(error)), deaths=deaths)
            return Verdict(Outcome.FAILED, str(error))


def _request(job: ClaimedJob) -> Request:
    return Request(
        id=request_id_of(job),
        prompt_ids=tuple(job.prompt_ids),
        max_tokens=job.max_tokens,
        sampling=Sampling.from_json(job.sampling),
        stop_token_ids=tuple(job.stop_token_ids),
    )
