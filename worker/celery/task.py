"""The Celery task: it calls `docmill.worker.run_job` and translates the outcome for Celery and Flower."""

from __future__ import annotations

from collections.abc import Callable

from celery import Celery
from celery.exceptions import Reject, Retry

from docmill.broker.celery_app import TASK_NAME
from docmill.worker.run_job import Outcome, Verdict


class JobFailed(Exception):
    """The job has failed permanently; its row contains the error. Flower shows FAILURE."""


def register_task(app: Celery, run: Callable[[int], Verdict]) -> None:
    """Handle `docmill.run_job` messages with `run`, and no other messages: Celery's own tasks are removed."""

    def run_job(job_id: int) -> str:
        return _celery_result(run(job_id))

    app.task(run_job, name=TASK_NAME, throws=(JobFailed,), shared=False)
    for name in set(app.tasks) - {TASK_NAME}:
        app.tasks.unregister(name)


def _celery_result(verdict: Verdict) -> str:
    match verdict.outcome:
        case Outcome.FAILED:
            raise JobFailed(verdict.reason)
        case Outcome.RETRIED:
            raise Retry(verdict.reason)
        case Outcome.RELEASED:  # the job is queued again, and the dispatcher will send a new message
            raise Reject(verdict.reason, requeue=False)
        case Outcome.NOT_TAKEN:  # the job is unchanged, so this message is still needed
            raise Reject(verdict.reason, requeue=True)
    return verdict.outcome.value
