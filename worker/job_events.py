"""Report what happens to a worker's jobs to observers: the log, the metrics, the resource samples.

`ObservedJobs` is used in place of `docmill.storage.moves.jobs.Jobs`; it reports what has been committed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from docmill.storage.attempt_metrics import GeneratedText
from docmill.storage.database import Database
from docmill.storage.moves.attempts import ClaimedJob, Failure, ReusedJob, WorkerIdentity
from docmill.storage.moves.jobs import Jobs

log = logging.getLogger("docmill.worker.jobs")


class Ending(StrEnum):
    """How a worker's attempt at a job ended. `retried`: it failed, and the job is queued again."""

    SUCCEEDED = "succeeded"
    RETRIED = "retried"
    FAILED = "failed"
    RELEASED = "released"
    FENCED = "fenced"


class JobObserver:
    """Called in the thread that runs the job; must be quick and must not raise. The methods do nothing by default."""

    def claimed(self, job: ClaimedJob) -> None:
        pass

    def reused(self, job: ReusedJob) -> None:
        pass

    def completed(self, job: ClaimedJob, generated: GeneratedText) -> None:
        pass

    def ended(self, job: ClaimedJob, ending: Ending, failure: Failure | None) -> None:
        """Every ending except `succeeded`."""


class ObservedJobs(Jobs):
    """`Jobs` that reports every change to observers."""

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
        if not super().complete(job, generated):
            return self._report(job, Ending.FENCED, is_changed=False)
        for observer in self._observers:
            observer.completed(job, generated)
        return True

    def retry(self, job: ClaimedJob, failure: Failure, *, delay_s: float, deaths: int = 0) -> bool:
        is_changed = super().retry(job, failure, delay_s=delay_s, deaths=deaths)
        return self._report(job, Ending.RETRIED, failure, is_changed=is_changed)

    def release(self, job: ClaimedJob) -> bool:
        return self._report(job, Ending.RELEASED, is_changed=super().release(job))

    def fail(self, job: ClaimedJob, failure: Failure, *, deaths: int = 0) -> bool:
        is_changed = super().fail(job, failure, deaths=deaths)
        return self._report(job, Ending.FAILED, failure, is_changed=is_changed)

    def _report(self, job: ClaimedJob, ending: Ending, failure: Failure | None = None, *, is_changed: bool) -> bool:
        for observer in self._observers:
            observer.ended(job, ending if is_changed else Ending.FENCED, failure)
        return is_changed


class JobLog(JobObserver):
    """Logs one line per event, with the ids as fields for `--log-format json`."""

    def claimed(self, job: ClaimedJob) -> None:
        log.debug("job %d claimed", job.id, extra=_ids(job) | {"event": "claimed"})

    def reused(self, job: ReusedJob) -> None:
        fields = {"event": "reused", "job": job.id, "reused_from": job.reused_from}
        log.info("job %d reuses the answer of job %d", job.id, job.reused_from, extra=fields)

    def completed(self, job: ClaimedJob, generated: GeneratedText) -> None:
        tokens = ("prompt_tokens", "cached_tokens", "completion_tokens")
        measured = {name: getattr(generated, name) for name in tokens}
        measured |= {name: round(getattr(generated, name), 4) for name in ("queue_s", "prefill_s", "decode_s")}
        log.info(
            "job %d succeeded: %d tokens read, %d written, %.2f s",
            job.id,
            generated.prompt_tokens,
            generated.completion_tokens,
            generated.queue_s + generated.prefill_s + generated.decode_s,
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
