from __future__ import annotations

from tests.unit.storage.conftest import Mill
from tests.unit.storage.test_announce import publish


def test_rescue_queues_what_a_dead_worker_held_and_nothing_else(mill: Mill) -> None:
    batch_id = mill.submit(3)
    lost, alive, queued = mill.job_ids(batch_id)
    publish(mill)
    mill.claim(lost)
    mill.let_pass(31)
    mill.claim(alive)
    assert mill.rescue(max_losses=3) == 1
    job = mill.job(lost)
    assert (job.state, job.owner, job.published_at, job.losses, job.failures) == ("queued", None, None, 1, 0)
    assert mill.outcomes(lost) == ["lost"]
    assert mill.states(batch_id) == ["queued", "running", "queued"]
    assert publish(mill) == [lost]
    assert mill.job(queued).losses == 0
    assert mill.rescue(max_losses=3) == 0


def test_a_job_that_loses_its_worker_too_often_is_failed(mill: Mill) -> None:
    batch_id = mill.submit(2)
    killer, _ = mill.job_ids(batch_id)
    for _ in range(3):
        mill.claim(killer)
        mill.let_pass(31)
        mill.rescue(max_losses=3)
    job = mill.job(killer)
    assert (job.state, job.error_kind, job.losses) == ("failed", "WorkerLost", 3)
    assert mill.outcomes(killer) == ["lost"] * 3
    assert mill.of_batch(batch_id).jobs_failed == 1


def test_losses_found_by_a_claim_count_as_those_found_by_rescue(mill: Mill) -> None:
    killer, _ = mill.job_ids(mill.submit(2))
    for _ in range(3):
        mill.claim(killer)
        mill.let_pass(31)
    mill.rescue(max_losses=3)
    assert mill.job(killer).state == "failed"


def test_rescue_fails_many_jobs_of_many_documents_at_once(mill: Mill) -> None:
    batches = [mill.submit(2, 2), mill.submit(3)]
    for batch_id in batches:
        for job_id in mill.job_ids(batch_id):
            mill.claim(job_id)
    mill.let_pass(31)
    assert mill.rescue(max_losses=1, limit=5) == 5
    assert mill.rescue(max_losses=1) == 2
    assert [mill.of_batch(batch_id).jobs_failed for batch_id in batches] == [4, 3]
