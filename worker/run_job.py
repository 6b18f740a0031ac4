"""One job from its id to its outcome: claim, generate, complete or fail."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from docmill.broker.sampling import Sampling
from docmill.storage.errors import DatabaseUnavailable, StorageError
from docmill.storage.moves.attempts import ClaimedJob, Failure, ReusedJob
from docmill.storage.moves.jobs import Jobs
from docmill.worker.crash_and_retry_policy import GiveUp, Retry, RetryPolicy
from docmill.worker.database_retry import Patience
from docmill.worker.engines.base import Completion, EngineClosed, EngineDied, EngineError, Request, RequestCancelled
from docmill.worker.heartbeat import Leases, request_id_of

log = logging.getLogger(__name__)


class Generates(Protocol):
    """What `docmill.worker.batcher.Batcher` does for a job."""

    def generate(self, request: Request) -> Completion: ...


class Outcome(StrEnum):
    """What became of a delivery."""

    NOT_OURS = "not ours"  # somebody else has it, it ended, or it waits: its batch is paused, or its equal runs
    NOT_TAKEN = "not taken"  # the worker ends
    DONE = "done"
    REUSED = "reused"  # the text of an equal job
    FENCED = "fenced"  # cancelled, expired or taken over while it ran
    RELEASED = "released"
    RETRIED = "retried"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a delivery, with the reason where it is not a good one."""

    outcome: Outcome
    reason: str = ""


def run_job(
    job_id: int, jobs: Jobs, leases: Leases, batcher: Generates, policy: RetryPolicy, patience: Patience
) -> Verdict:
    """Run one job. Every way out leaves its row in a state from which it goes on."""
    if patience.is_closing():
        return Verdict(Outcome.NOT_TAKEN, "the worker is shutting down")
    try:
        job = patience.take(jobs.claim, job_id)
    except DatabaseUnavailable as error:
        return Verdict(Outcome.NOT_TAKEN, str(error))
    match job:
        case None:
            return Verdict(Outcome.NOT_OURS)
        case ReusedJob(reused_from=computed):
            return Verdict(Outcome.REUSED, f"of job {computed}")
    with leases.holding(job):
        try:
            return _attempt(job, jobs, batcher, policy, patience)
        except StorageError:
            raise  # the lease ends, and another attempt follows
        except Exception as error:
            log.exception("job %d failed as nobody expected", job.id)
            return _fail(job, jobs, error, policy, patience)


def _attempt(job: ClaimedJob, jobs: Jobs, batcher: Generates, policy: RetryPolicy, patience: Patience) -> Verdict:
    try:
        completion = batcher.generate(_request(job))
    except EngineClosed as error:
        patience.store(jobs.release, job)
        return Verdict(Outcome.RELEASED, str(error))
    except RequestCancelled as error:
        patience.store(jobs.release, job)  # does nothing where the row was moved
        return Verdict(Outcome.FENCED, str(error))
    except EngineError as error:
        return _fail(job, jobs, error, policy, patience)
    if not patience.store(jobs.complete, job, completion):
        return Verdict(Outcome.FENCED, "it was cancelled, expired or taken over while it ran")
    return Verdict(Outcome.DONE)


def _fail(job: ClaimedJob, jobs: Jobs, error: Exception, policy: RetryPolicy, patience: Patience) -> Verdict:
    deaths = 1 if isinstance(error, EngineDied) else 0
    match policy.decide(error, job.failures, job.deaths):
        case Retry(delay_s):
            patience.store(jobs.retry, job, Failure(type(error).__name__, str(error)), delay_s=delay_s, deaths=deaths)
            return Verdict(Outcome.RETRIED, str(error))
        case GiveUp(kind):
            patience.store(jobs.fail, job, Failure(kind, str(error)), deaths=deaths)
            return Verdict(Outcome.FAILED, str(error))


def _request(job: ClaimedJob) -> Request:
    return Request(
        id=request_id_of(job),
        prompt_ids=tuple(job.prompt_ids),
        max_tokens=job.max_tokens,
        sampling=Sampling.from_json(job.sampling),
        stop_token_ids=tuple(job.stop_token_ids),
    )
