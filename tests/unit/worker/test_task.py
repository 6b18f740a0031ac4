"""How each outcome appears in Celery and Flower."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from celery import Celery, Task
from celery.exceptions import Reject

from docmill.broker.celery_app import TASK_NAME, make_app
from docmill.worker.celery.task import JobFailed, register_task
from docmill.worker.run_job import Outcome, Verdict


def task_for(run: Callable[[int], Verdict]) -> Task:
    app: Celery = make_app("memory://")
    register_task(app, run)
    task: Task = app.tasks[TASK_NAME]
    return task


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Outcome.DONE, "SUCCESS"),
        (Outcome.REUSED, "SUCCESS"),
        (Outcome.NOT_OURS, "SUCCESS"),
        (Outcome.FENCED, "SUCCESS"),
        (Outcome.FAILED, "FAILURE"),
        (Outcome.RETRIED, "RETRY"),
        (Outcome.RELEASED, "REJECTED"),
    ],
)
def test_every_outcome_has_its_state_in_flower(outcome: Outcome, state: str) -> None:
    asked: list[int] = []

    def run(job_id: int) -> Verdict:
        asked.append(job_id)
        return Verdict(outcome, "the reason")

    result = task_for(run).apply(args=(17,))
    assert result.state == state
    assert asked == [17]
    if state == "SUCCESS":
        assert result.result == str(outcome)


def test_a_failed_job_shows_its_reason_without_a_traceback() -> None:
    task = task_for(lambda _: Verdict(Outcome.FAILED, "the prompt does not fit"))
    assert JobFailed in task.throws
    with pytest.raises(JobFailed, match="the prompt does not fit"):
        task(1)


def test_a_message_whose_job_was_not_touched_goes_back_to_the_broker() -> None:
    with pytest.raises(Reject) as rejected:
        task_for(lambda _: Verdict(Outcome.NOT_TAKEN, "no database"))(1)
    assert rejected.value.requeue is True


def test_a_released_job_does_not_come_back_through_the_broker() -> None:
    with pytest.raises(Reject) as rejected:  # the dispatcher announces it again
        task_for(lambda _: Verdict(Outcome.RELEASED, "shutting down"))(1)
    assert rejected.value.requeue is False
    assert rejected.value.reason == "shutting down"
