"""Every way out of a job, on a real database."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from docmill.broker.sampling_parameters import Sampling
from docmill.worker.crash_and_retry_policy import RetryPolicy
from docmill.worker.database_retry import DatabaseRetry
from docmill.worker.engines.base import (
    Completion,
    EngineClosed,
    EngineDied,
    EngineError,
    EngineFailed,
    FinishReason,
    PromptTooLong,
    Request,
    RequestCancelled,
)
from docmill.worker.heartbeat import Heartbeat
from docmill.worker.run_job import Outcome, Verdict, run_job
from tests.unit.worker.conftest import Stored


class Scripted:
    """An engine that does what the test says."""

    def __init__(self, answer: Callable[[Request], Completion]) -> None:
        self._answer = answer
        self.asked: list[Request] = []

    is_closed = False

    def generate(self, request: Request) -> Completion:
        self.asked.append(request)
        return self._answer(request)


def completed(request: Request) -> Completion:
    return Completion(
        request_id=request.id, text="a text", finish_reason=FinishReason.STOP, prompt_tokens=3, completion_tokens=7,
        cached_tokens=2, queue_s=0.5, prefill_s=0.25, decode_s=1.5, batch_size=2.5, peak_memory_bytes=1024,
    )  # fmt: skip


def raising(error: EngineError) -> Callable[[Request], Completion]:
    def answer(request: Request) -> Completion:
        raise error

    return answer


def run(stored: Stored, answer: Callable[[Request], Completion], job_id: int | None = None) -> Verdict:
    return run_with(stored, Scripted(answer), job_id)


def run_with(stored: Stored, engine: Scripted, job_id: int | None = None, *, closes_after: int = 1000) -> Verdict:
    """`closes_after`: the worker shuts down after so many checks."""
    looks = iter(range(closes_after))
    db_retry = DatabaseRetry(lambda: next(looks, None) is None)
    jobs = stored.jobs()
    heartbeat = Heartbeat(jobs, stored.workers(), lambda _: None, lease_s=60.0)
    policy = RetryPolicy(max_attempts=3, poison_deaths=3, base_s=100.0, max_s=100.0)
    return run_job(stored.job_ids[0] if job_id is None else job_id, jobs, heartbeat, engine, policy, db_retry)


def only(rows: list[dict[str, Any]]) -> dict[str, Any]:
    assert len(rows) == 1
    return rows[0]


def test_the_engine_is_asked_for_exactly_what_the_job_stores(stored: Stored) -> None:
    engine = Scripted(completed)
    run_with(stored, engine)
    assert engine.asked == [
        Request(
            id=f"{stored.job_ids[0]}-1",
            prompt_ids=(10, 20, 30),
            max_tokens=16,
            sampling=Sampling(temperature=0.5, stop=("END",)),
            stop_token_ids=(2,),
        )
    ]


def test_a_completion_is_stored_with_its_metrics_and_counted(stored: Stored) -> None:
    job_id = stored.job_ids[0]
    assert run(stored, completed) == Verdict(Outcome.DONE)
    assert stored.job(job_id)["state"] == "succeeded"
    attempt = only(stored.attempts(job_id))
    expected = {
        "outcome": "succeeded", "worker": "host/cpu-1", "engine": "simulated", "prompt_tokens": 3, "cached_tokens": 2,
        "completion_tokens": 7, "queue_s": 0.5, "prefill_s": 0.25, "decode_s": 1.5, "batch_size": 2.5,
        "peak_memory_bytes": 1024, "error": None,
    }  # fmt: skip
    assert {name: attempt[name] for name in expected} == expected
    result = only(stored.rows("SELECT * FROM results"))
    assert (result["job_id"], result["text"], result["finish_reason"]) == (job_id, "a text", "stop")
    assert only(stored.rows("SELECT open_jobs FROM documents"))["open_jobs"] == 3


def test_a_second_delivery_of_a_finished_job_runs_nothing(stored: Stored) -> None:
    run(stored, completed)
    engine = Scripted(completed)
    assert run_with(stored, engine) == Verdict(Outcome.NOT_OURS)
    assert engine.asked == []
    assert len(stored.rows("SELECT * FROM results")) == 1


def test_a_delivery_of_a_job_that_is_running_elsewhere_or_is_unknown_runs_nothing(stored: Stored) -> None:
    stored.jobs("other/cpu-1").claim(stored.job_ids[0])
    engine = Scripted(completed)
    assert run_with(stored, engine) == Verdict(Outcome.NOT_OURS)
    assert run_with(stored, engine, job_id=999_999) == Verdict(Outcome.NOT_OURS)
    assert engine.asked == []


def test_a_worker_that_shuts_down_puts_the_job_back_uncharged(stored: Stored) -> None:
    job_id = stored.job_ids[0]
    verdict = run(stored, raising(EngineClosed("shutting down")))
    assert verdict == Verdict(Outcome.RELEASED, "shutting down")
    job = stored.job(job_id)
    assert (job["state"], job["failures"], job["published_at"]) == ("queued", 0, None)
    assert only(stored.attempts(job_id))["outcome"] == "released"
    assert run(stored, completed).outcome is Outcome.DONE  # at once: nothing was charged


def test_a_failure_worth_another_try_is_charged_and_queued_for_later(stored: Stored) -> None:
    job_id = stored.job_ids[0]
    assert run(stored, raising(EngineFailed("it raised"))) == Verdict(Outcome.RETRIED, "it raised")
    job = stored.job(job_id)
    assert (job["state"], job["failures"], job["error_kind"], job["error"]) == (
        "queued", 1, "EngineFailed", "it raised",
    )  # fmt: skip
    assert run(stored, completed) == Verdict(Outcome.NOT_OURS)  # not yet due
    stored.set_job(job_id, "not_before = 0")
    assert run(stored, completed).outcome is Outcome.DONE
    assert [attempt["outcome"] for attempt in stored.attempts(job_id)] == ["failed", "succeeded"]


@pytest.mark.parametrize(
    ("error", "failures", "kind"),
    [
        (PromptTooLong(3000, 200, 2048), 0, "PromptTooLong"),
        (EngineFailed("again"), 2, "EngineFailed"),
        (EngineDied("killed it"), 2, "Poison"),
    ],
)
def test_a_failure_for_good_says_what_it_was(stored: Stored, error: EngineError, failures: int, kind: str) -> None:
    job_id = stored.job_ids[0]
    stored.set_job(job_id, f"failures = {failures}, deaths = {failures if kind == 'Poison' else 0}")
    assert run(stored, raising(error)) == Verdict(Outcome.FAILED, str(error))
    job = stored.job(job_id)
    assert (job["state"], job["error_kind"], job["error"]) == ("failed", kind, str(error))
    assert only(stored.attempts(job_id))["error_kind"] == kind
    document = only(stored.rows("SELECT open_jobs, failed_jobs FROM documents"))
    assert document == {"open_jobs": 3, "failed_jobs": 1}


def test_a_job_that_a_worker_cannot_read_is_charged_and_in_the_end_failed_with_the_reason(stored: Stored) -> None:
    job_id = stored.job_ids[0]
    stored.set_job(job_id, """sampling = '{"of another version": 1}'""")
    reason = "unknown sampling parameter 'of another version'"
    for outcome in (Outcome.RETRIED, Outcome.RETRIED, Outcome.FAILED):
        verdict = run(stored, completed)
        assert (verdict.outcome, verdict.reason[: len(reason)]) == (outcome, reason)
        stored.set_job(job_id, "not_before = 0")
    assert (stored.job(job_id)["state"], stored.job(job_id)["error_kind"]) == ("failed", "TypeError")


def test_a_text_finished_after_its_batch_was_cancelled_is_not_stored(stored: Stored) -> None:
    def answer(request: Request) -> Completion:
        stored.cancel()
        return completed(request)

    assert run(stored, answer).outcome is Outcome.FENCED
    assert stored.job(stored.job_ids[0])["state"] == "cancelled"
    assert stored.rows("SELECT * FROM results") == []
    assert only(stored.attempts(stored.job_ids[0]))["outcome"] == "cancelled"


def test_a_request_stopped_because_its_batch_was_cancelled_leaves_the_job_cancelled(stored: Stored) -> None:
    def answer(request: Request) -> Completion:
        stored.cancel()
        raise RequestCancelled("cancelled while it ran")

    assert run(stored, answer) == Verdict(Outcome.FENCED, "cancelled while it ran")
    assert stored.job(stored.job_ids[0])["state"] == "cancelled"


def test_a_request_given_up_while_the_job_is_still_ours_is_put_back_uncharged(stored: Stored) -> None:
    # The database was away longer than a lease, and no other worker had taken the job.
    assert run(stored, raising(RequestCancelled("given up"))).outcome is Outcome.FENCED
    job = stored.job(stored.job_ids[0])
    assert (job["state"], job["failures"]) == ("queued", 0)


def test_a_worker_whose_job_was_taken_over_changes_nothing(stored: Stored) -> None:
    job_id = stored.job_ids[0]

    def taken_over_before(outcome: Callable[[Request], Completion]) -> Callable[[Request], Completion]:
        def answer(request: Request) -> Completion:
            stored.set_job(job_id, "lease_until = 1")
            assert stored.jobs("other/cpu-1").claim(job_id) is not None
            return outcome(request)

        return answer

    assert run(stored, taken_over_before(completed)).outcome is Outcome.FENCED
    stored.set_job(job_id, "lease_until = 1")
    assert run(stored, taken_over_before(raising(EngineClosed("bye")))).outcome is Outcome.RELEASED
    job = stored.job(job_id)
    assert (job["state"], job["owner"], job["epoch"], job["failures"]) == ("running", "other/cpu-1", 4, 0)
    assert stored.rows("SELECT * FROM results") == []


class _ReleaseOnWarning(logging.Handler):
    """Gives the database back as soon as the worker has noticed that it is away."""

    def __init__(self, give_back: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._give_back = give_back
        self.warnings: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.warnings.append(record.getMessage())
        self._give_back()


@pytest.mark.parametrize(
    ("ending", "outcome", "state"),
    [
        (completed, Outcome.DONE, "succeeded"),
        (raising(EngineFailed("x")), Outcome.RETRIED, "queued"),
        (raising(PromptTooLong(1, 2, 3)), Outcome.FAILED, "failed"),
        (raising(EngineClosed("x")), Outcome.RELEASED, "queued"),
    ],
    ids=lambda value: str(value) if isinstance(value, Outcome) else "",
)
def test_the_outcome_of_a_job_waits_for_a_database_that_is_away(
    stored: Stored, ending: Callable[[Request], Completion], outcome: Outcome, state: str
) -> None:
    log = logging.getLogger("docmill.worker.database_retry")
    handlers: list[_ReleaseOnWarning] = []

    def answer(request: Request) -> Completion:
        handlers.append(_ReleaseOnWarning(stored.lock()))
        log.addHandler(handlers[0])
        return ending(request)

    try:
        assert run(stored, answer).outcome is outcome
    finally:
        log.removeHandler(handlers[0])
    assert "locked" in handlers[0].warnings[0]
    assert stored.job(stored.job_ids[0])["state"] == state


def test_a_worker_waits_with_its_claim_for_a_database_that_is_away(stored: Stored) -> None:
    log, handler = logging.getLogger("docmill.worker.database_retry"), _ReleaseOnWarning(stored.lock())
    log.addHandler(handler)
    try:
        assert run(stored, completed).outcome is Outcome.DONE
    finally:
        log.removeHandler(handler)
    assert len(handler.warnings) == 2, "that it is away, and that it answers again"


def test_a_worker_that_ends_claims_nothing(stored: Stored) -> None:
    engine = Scripted(completed)
    assert run_with(stored, engine, closes_after=0).outcome is Outcome.NOT_TAKEN
    assert stored.job(stored.job_ids[0])["epoch"] == 0
    assert engine.asked == []


def test_an_equal_job_that_succeeded_before_needs_no_engine(stored: Stored) -> None:
    first, second = stored.job_ids[:2]
    for job_id in (first, second):
        stored.set_job(job_id, "reuse_key = 'equal'")
    assert run(stored, completed, first).outcome is Outcome.DONE
    engine = Scripted(completed)
    assert run_with(stored, engine, second) == Verdict(Outcome.REUSED, f"of job {first}")
    assert engine.asked == []
    assert only(stored.rows(f"SELECT text FROM results WHERE job_id = {second}"))["text"] == "a text"


def test_a_job_that_cannot_be_claimed_because_the_database_is_away_stays_as_it_was(stored: Stored) -> None:
    give_back = stored.lock()
    engine = Scripted(completed)
    assert run_with(stored, engine, closes_after=2).outcome is Outcome.NOT_TAKEN
    give_back()
    assert engine.asked == []
    assert stored.job(stored.job_ids[0])["state"] == "queued"
    assert run_with(stored, engine).outcome is Outcome.DONE
