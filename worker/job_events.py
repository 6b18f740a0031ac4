"""What happens to a worker's jobs, told to whoever wants to know: the log, the metrics.

`ObservedJobs` stands where `docmill.storage.moves.jobs.Jobs` does; what it tells has been committed by then.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Protocol

from docmill.storage.attempt_metrics import GeneratedText
from docmill.storage.database import Database
from docmill.storage.moves.attempts import ClaimedJob, Failure, ReusedJob, WorkerIdentity
from docmill.storage.moves.jobs import Jobs

log = logging.getLogger("docmill.worker.jobs")


class Ending(StrEnum):
    """How a worker's hold on a job ended. `retried` is a failure after which the job is queued again."""

    SUCCEEDED = "succeeded"
    RETRIED = "retried"
    FAILED = "failed"
    RELEASED = "released"
    FENCED = "fenced"


class JobObserver(Protocol):
    """Called in the thread that runs the job; must be quick and must not raise."""

    def claimed(self, job: ClaimedJob) -> None: ...
    def reused(self, job: ReusedJob) -> None: ...
    def completed(self, job: ClaimedJob, generated: GeneratedText) -> None: ...
    def ended(self, job: ClaimedJob, ending: Ending, failure: Failure | None) -> None:
        """Every ending but `succeeded`."""
        ...


class ObservedJobs(Jobs):
    """A worker's hand on the jobs table, whose moves are told to observers."""

    def __init__(
        self, database: Database, worker: WorkerIdentity, *, lease_s: float, observers: Sequence[JobObserver]
    ) -> None:
        super().__init__(database, worker, lease_s=lease_s)
        self._observers = observers

    def claim(self, job_id: int) -> ClaimedJob | ReusedJob | None:
        job = super().claim(job_id)
        for observer in self._observers:
            match job:
                case ClaimedJob():
                    observer.claimed(job)
                case ReusedJob():
                    observer.reused(job)
        return job

    def complete(self, job: ClaimedJob, generated: GeneratedText) -> bool:
        stored = super().complete(job, generated)
        if not stored:
            self._tell(job, Ending.FENCED)
            return False
        for observer in self._observers:
            observer.completed(job, generated)
        return True

    def retry(self, job: ClaimedJob, failure: Failure, *, delay_s: float, deaths: int = 0) -> bool:
        moved = super().retry(job, failure, delay_s=delay_s, deaths=deaths)
        self._tell(job, Ending.RETRIED if moved else Ending.FENCED, failure)
        return moved

    def release(self, job: ClaimedJob) -> bool:
        moved = super().release(job)
        self._tell(job, Ending.RELEASED if moved else Ending.FENCED)
        return moved

    def fail(self, job: ClaimedJob, failure: Failure, *, deaths: int = 0) -> bool:
        ended = super().fail(job, failure, deaths=deaths)
        self._tell(job, Ending.FAILED if ended else Ending.FENCED, failure)
        return ended

    def _tell(self, job: ClaimedJob, ending: Ending, failure: Failure | None = None) -> None:
        for observer in self._observers:
            observer.ended(job, ending, failure)


class JobLog:
    """A line an event, with the ids as fields (`--log-format json` writes them out): batch, job, attempt."""

    def claimed(self, job: ClaimedJob) -> None:
        log.debug("job %d claimed", job.id, extra=_ids(job) | {"event": "claimed"})

    def reused(self, job: ReusedJob) -> None:
        fields = {"event": "reused", "job": job.id, "reused_from": job.reused_from}
        log.info("job %d takes the answer of job %d", job.id, job.reused_from, extra=fields)

    def completed(self, job: ClaimedJob, generated: GeneratedText) -> None:
        seconds = generated.queue_s + generated.prefill_s + generated.decode_s
        measured = {
            "prompt_tokens": generated.prompt_tokens,
            "cached_tokens": generated.cached_tokens,
            "completion_tokens": generated.completion_tokens,
            "queue_s": round(generated.queue_s, 4),
            "prefill_s": round(generated.prefill_s, 4),
            "decode_s": round(generated.decode_s, 4),
        }
        log.info(
            "job %d succeeded: %d tokens read, %d written, %.2f s",
            job.id,
            generated.prompt_tokens,
            generated.completion_tokens,
            seconds,
            extra=_ids(job) | {"event": Ending.SUCCEEDED.value} | measured,
        )

    def ended(self, job: ClaimedJob, ending: Ending, failure: Failure | None) -> None:
        fields = _ids(job) | {"event": ending.value}
        if failure is None:
            log.info("job %d %s", job.id, ending, extra=fields)
            return
        fields |= {"error_kind": failure.kind, "error": failure.message}
        log.warning("job %d %s: %s: %s", job.id, ending, failure.kind, failure.message, extra=fields)


def _ids(job: ClaimedJob) -> dict[str, Any]:
    return {
        "batch": job.batch_id,
        "job": job.id,
        "attempt": job.epoch,
        "document": job.document_id,
        "merge_level": job.level,
        "position": job.position,
    }
