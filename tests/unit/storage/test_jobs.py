from __future__ import annotations

import pytest

from docmill.storage.moves.attempts import Failure
from tests.unit.storage.conftest import Mill, generated

FAILURE = Failure("EngineFailed", "it raised")


def test_claim_hands_out_the_prompt_and_opens_an_attempt(mill: Mill) -> None:
    (job_id,) = mill.job_ids(mill.submit(1))
    job = mill.worker("host/cpu-1").claim(job_id)
    assert job is not None
    assert (job.id, job.epoch, job.prompt_ids, job.max_tokens, job.failures) == (job_id, 1, (1, 2, 3), 10, 0)
    (attempt,) = mill.attempts(job_id)
    assert (attempt.epoch, attempt.outcome, attempt.worker, attempt.engine) == (1, "running", "host/cpu-1", "simulated")
    assert attempt.finished_at is None
    assert mill.job(job_id).owner == "host/cpu-1"


def test_second_claim_of_a_running_job_returns_nothing(mill: Mill) -> None:
    (job_id,) = mill.job_ids(mill.submit(1))
    mill.claim(job_id, "first")
    assert mill.worker("second").claim(job_id) is None
    assert (mill.job(job_id).owner, mill.job(job_id).epoch) == ("first", 1)
    assert len(mill.attempts(job_id)) == 1


def test_a_worker_of_another_model_is_given_nothing(mill: Mill) -> None:
    (job_id,) = mill.job_ids(mill.submit(1))
    assert mill.worker("second", model="another").claim(job_id) is None
    assert (mill.job(job_id).state, mill.attempts(job_id)) == ("queued", [])


def test_a_job_whose_lease_ran_out_can_be_claimed_and_counts_as_lost(mill: Mill) -> None:
    (job_id,) = mill.job_ids(mill.submit(1))
    mill.claim(job_id, "dead")
    mill.let_pass(31)
    assert mill.claim(job_id, "next").epoch == 2
    assert mill.outcomes(job_id) == ["lost", "running"]
    assert (mill.job(job_id).owner, mill.job(job_id).losses, mill.job(job_id).failures) == ("next", 1, 0)


@pytest.mark.parametrize("end", ["complete", "fail", "cancel"])
def test_a_job_that_has_ended_cannot_be_claimed(mill: Mill, end: str) -> None:
    batch_id = mill.submit(1)
    (job_id,) = mill.job_ids(batch_id)
    match end:
        case "complete":
            mill.run(job_id)
        case "fail":
            assert mill.worker().fail(mill.claim(job_id), FAILURE)
        case "cancel":
            mill.batches.cancel(batch_id)
    assert mill.worker().claim(job_id) is None


def test_a_job_is_not_claimed_before_its_time(mill: Mill) -> None:
    (job_id,) = mill.job_ids(mill.submit(1))
    assert mill.worker().retry(mill.claim(job_id), FAILURE, delay_s=60)
    assert mill.worker().claim(job_id) is None
    mill.let_pass(61)
    assert mill.claim(job_id).failures == 1


def test_claim_of_an_unknown_job_returns_nothing(mill: Mill) -> None:
    assert mill.worker().claim(12345) is None


def test_heartbeat_returns_only_what_is_still_ours(mill: Mill) -> None:
    kept, stolen, ended = (mill.claim(job_id, "us") for job_id in mill.job_ids(mill.submit(3)))
    cancelled_batch = mill.submit(1, key="other")
    cancelled = mill.claim(mill.job_ids(cancelled_batch)[0], "us")
    mill.batches.cancel(cancelled_batch)
    mill.change("UPDATE jobs SET lease_until = 1 WHERE id = :id", id=stolen.id)
    theirs = mill.claim(stolen.id, "them")
    assert mill.worker("us").complete(ended, generated())
    before = mill.job(theirs.id).lease_until
    assert mill.worker("us", lease_s=500).heartbeat([kept, stolen, ended, cancelled]) == {(kept.id, kept.epoch)}
    assert mill.job(theirs.id).lease_until == before, "another's lease is not ours to renew"
    assert mill.worker("us").heartbeat([]) == set()


def test_heartbeat_keeps_a_lease_from_running_out(mill: Mill) -> None:
    (job_id,) = mill.job_ids(mill.submit(1))
    job = mill.claim(job_id)
    for _ in range(3):
        mill.let_pass(20)
        assert mill.worker().heartbeat([job]) == {(job.id, job.epoch)}
    assert mill.rescue(max_losses=9) == 0


def test_complete_stores_the_result_its_metrics_and_counts_once(mill: Mill) -> None:
    batch_id = mill.submit(2)
    first, _ = mill.job_ids(batch_id)
    job = mill.claim(first)
    assert mill.worker().complete(job, generated("the text", completion_tokens=7))
    assert not mill.worker().complete(job, generated("again"))
    assert [row.text for row in mill.rows("SELECT text FROM results")] == ["the text"]
    (document,) = mill.rows("SELECT * FROM documents")
    batch = mill.of_batch(batch_id)
    assert (document.open_jobs, batch.jobs_succeeded, batch.completion_tokens, batch.cached_tokens) == (1, 1, 7, 1)
    (attempt,) = mill.attempts(first)
    assert (attempt.outcome, attempt.queue_s, attempt.prefill_s, attempt.decode_s) == ("succeeded", 0.1, 0.2, 0.3)
    assert (attempt.batch_size, attempt.peak_memory_bytes, attempt.completion_tokens) == (2.5, 1 << 20, 7)


def test_a_stale_epoch_stores_nothing_and_its_attempt_says_fenced(mill: Mill) -> None:
    (job_id,) = mill.job_ids(mill.submit(1))
    stale = mill.claim(job_id, "frozen")
    mill.let_pass(31)
    current = mill.claim(job_id, "next")
    assert not mill.worker("frozen").complete(stale, generated("too late"))
    assert mill.rows("SELECT * FROM results") == []
    assert mill.outcomes(job_id) == ["fenced", "running"]
    assert mill.attempts(job_id)[0].completion_tokens == 7, "what it cost is known"
    assert mill.worker("next").complete(current, generated("in time"))
    assert [row.text for row in mill.rows("SELECT text FROM results")] == ["in time"]


@pytest.mark.parametrize("move", ["fail", "retry", "release"])
def test_a_stale_epoch_can_neither_fail_nor_requeue(mill: Mill, move: str) -> None:
    (job_id,) = mill.job_ids(mill.submit(1))
    stale = mill.claim(job_id, "frozen")
    mill.let_pass(31)
    mill.claim(job_id, "next")
    worker = mill.worker("frozen")
    moved = {
        "fail": lambda: worker.fail(stale, FAILURE),
        "retry": lambda: worker.retry(stale, FAILURE, delay_s=0),
        "release": lambda: worker.release(stale),
    }[move]()
    assert not moved
    job = mill.job(job_id)
    assert (job.state, job.owner, job.failures) == ("running", "next", 0)
    assert mill.outcomes(job_id) == ["fenced", "running"]


def test_retry_counts_an_attempt_and_is_published_again(mill: Mill) -> None:
    (job_id,) = mill.job_ids(mill.submit(1))
    mill.outbox.mark_published(mill.outbox.unpublished("m", 10))
    assert mill.worker().retry(mill.claim(job_id), FAILURE, delay_s=0)
    job = mill.job(job_id)
    assert (job.state, job.failures, job.owner, job.published_at, job.publishes) == ("queued", 1, None, None, 0)
    assert (job.error_kind, job.error) == ("EngineFailed", "it raised")
    (attempt,) = mill.attempts(job_id)
    assert (attempt.outcome, attempt.error_kind, attempt.error) == ("failed", "EngineFailed", "it raised")
    assert [found.id for found in mill.outbox.unpublished("m", 10)] == [job_id]


def test_release_charges_nothing(mill: Mill) -> None:
    (job_id,) = mill.job_ids(mill.submit(1))
    mill.outbox.mark_published(mill.outbox.unpublished("m", 10))
    assert mill.worker().release(mill.claim(job_id))
    job = mill.job(job_id)
    assert (job.state, job.failures, job.losses, job.published_at) == ("queued", 0, 0, None)
    assert mill.outcomes(job_id) == ["released"]
    assert mill.claim(job_id).epoch == 2


def test_fail_ends_the_job_and_counts_it_on_document_and_batch(mill: Mill) -> None:
    batch_id = mill.submit(2)
    job_id, _ = mill.job_ids(batch_id)
    assert mill.worker().fail(mill.claim(job_id), Failure("PromptTooLong", "9000 tokens"))
    job = mill.job(job_id)
    assert (job.state, job.failures, job.error_kind, job.error) == ("failed", 1, "PromptTooLong", "9000 tokens")
    (document,) = mill.rows("SELECT * FROM documents")
    assert (document.open_jobs, document.failed_jobs, mill.of_batch(batch_id).jobs_failed) == (1, 1, 1)
