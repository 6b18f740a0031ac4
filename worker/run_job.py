"""One job from its id to its outcome: claim, generate, complete or fail."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import ParamSpec, Protocol

from tenacity import Retrying, before_sleep_log, retry_if_exception_type, stop_after_delay, wait_random_exponential

from broker.sampling import Sampling
from storage.errors import DatabaseUnavailable
from storage.jobs import ClaimedJob, Failure, Generated, Jobs
from worker.engines.base import Completion, EngineClosed, EngineError, Request, RequestCancelled
from worker.leases import Leases, request_id_of
from worker.policy import GiveUp, Retry, RetryPolicy

P = ParamSpec("P")

log = logging.getLogger(__name__)
_STORE_S = 600.0  # how long a finished text is kept for a database that does not answer


class Generates(Protocol):
    """What `worker.batcher.Batcher` does for a job."""

    def generate(self, request: Request) -> Completion: ...


class Outcome(StrEnum):
    """What became of a delivery."""

    NOT_OURS = "not ours"  # somebody else has it, or it ended long ago
    DONE = "done"
    FENCED = "fenced"  # cancelled, expired or taken over while it ran
    RELEASED = "released"
    RETRIED = "retried"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a delivery, with the reason where it is not a good one."""

    outcome: Outcome
    reason: str = ""


def run_job(job_id: int, jobs: Jobs, leases: Leases, batcher: Generates, policy: RetryPolicy) -> Verdict:
    """Run one job. Every way out leaves its row in a state from which it goes on."""
    job = jobs.claim(job_id)
    if job is None:
        return Verdict(Outcome.NOT_OURS)
    with leases.holding(job):
        try:
            completion = batcher.generate(_request(job))
        except EngineClosed as error:
            _stored(jobs.release, job)
            return Verdict(Outcome.RELEASED, str(error))
        except RequestCancelled as error:
            _stored(jobs.release, job)  # nothing to release when the row was moved; all to release when it was not
            return Verdict(Outcome.FENCED, str(error))
        except EngineError as error:
            return _fail(job, jobs, error, policy)
        if not _stored(jobs.complete, job, _generated(completion)):
            return Verdict(Outcome.FENCED, "it was cancelled, expired or taken over while it ran")
        return Verdict(Outcome.DONE)


def _fail(job: ClaimedJob, jobs: Jobs, error: EngineError, policy: RetryPolicy) -> Verdict:
    match policy.decide(error, job.failures):
        case Retry(delay_s):
            _stored(jobs.retry, job, Failure(type(error).__name__, str(error)), delay_s=delay_s)
            return Verdict(Outcome.RETRIED, str(error))
        case GiveUp(kind):
            _stored(jobs.fail, job, Failure(kind, str(error)))
            return Verdict(Outcome.FAILED, str(error))


def _stored(move: Callable[P, bool], *args: P.args, **kwargs: P.kwargs) -> bool:
    """Make a move, waiting for a database that is full, locked or away: the work behind it is done already."""
    retrying = Retrying(
        retry=retry_if_exception_type(DatabaseUnavailable),
        wait=wait_random_exponential(multiplier=0.2, max=15.0),
        stop=stop_after_delay(_STORE_S),
        before_sleep=before_sleep_log(log, logging.WARNING),
        reraise=True,
    )
    return retrying(move, *args, **kwargs)


def _request(job: ClaimedJob) -> Request:
    return Request(
        id=request_id_of(job),
        prompt_ids=tuple(job.prompt_ids),
        max_tokens=job.max_tokens,
        sampling=Sampling.from_json(job.sampling),
        stop_token_ids=tuple(job.stop_token_ids),
    )


def _generated(completion: Completion) -> Generated:
    return Generated(
        text=completion.text,
        finish_reason=str(completion.finish_reason),
        prompt_tokens=completion.prompt_tokens,
        cached_tokens=completion.cached_tokens,
        completion_tokens=completion.completion_tokens,
        queue_s=completion.queue_s,
        prefill_s=completion.prefill_s,
        decode_s=completion.decode_s,
        batch_size=completion.batch_size,
        peak_memory_bytes=completion.peak_memory_bytes,
    )
