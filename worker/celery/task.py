"""The Celery task: one line into `docmill.worker.run_job`, and what Flower is told about the outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from celery import Celery
from celery.exceptions import Reject, Retry

from docmill.broker.celery_app import TASK_NAME
from docmill.worker.run_job import Outcome, Verdict


class JobFailed(Exception):
    """The job has failed for good; its row says why. Shown as FAILURE in Flower."""


def register_task(app: Celery, run: Callable[[int], Verdict]) -> None:
    """Let this process run `docmill.run_job` messages with `run`, and no others: Celery's own tasks are taken out."""

    def run_job(job_id: int) -> str:
        return _shown(run(job_id))

    app.task(run_job, name=TASK_NAME, throws=(JobFailed,), shared=False)
    for name in set(app.tasks) - {TASK_NAME}:
        app.tasks.unregister(name)


def _shown(verdict: Verdict) -> str:
    match verdict.outcome:
        case Outcome.FAILED:
            raise JobFailed(verdict.reason)
        case Outcome.RETRIED:
            raise Retry(verdict.reason)
        case Outcome.RELEASED:
            _reject(verdict)
        case Outcome.NOT_TAKEN:
            raise Reject(verdict.reason, requeue=True)  # its row was not touched: the message is still needed
    return verdict.outcome.value


def _reject(verdict: Verdict) -> NoReturn:
    # The row is queued and unpublished again: the dispatcher will announce it, this message has done its work.
    raise Reject(verdict.reason, requeue=False)
