from __future__ import annotations

import pytest

from docmill.storage.errors import NoSuchWorker, WrongState
from docmill.storage.moves.workers import pause_worker, resume_worker
from tests.unit.storage.conftest import Mill, generated


def test_a_paused_batch_is_neither_announced_nor_claimed(mill: Mill) -> None:
    paused, other = mill.submit(2), mill.submit(1, key="other")
    mill.batches.pause(paused)
    assert [job.batch_id for job in mill.outbox.unpublished("m", 10)] == [other]
    assert mill.worker().claim(mill.job_ids(paused)[0]) is None
    assert mill.states(paused) == ["queued", "queued"]
    mill.check()


def test_a_model_that_only_paused_batches_ask_for_is_not_at_work(mill: Mill) -> None:
    batch_id = mill.submit(1)
    mill.batches.pause(batch_id)
    assert mill.outbox.models_at_work() == []
    mill.batches.resume(batch_id)
    assert mill.outbox.models_at_work() == ["m"]


def test_what_runs_when_its_batch_is_paused_is_finished(mill: Mill) -> None:
    batch_id = mill.submit(2)
    job = mill.claim(mill.job_ids(batch_id)[0])
    mill.batches.pause(batch_id)
    assert mill.worker().heartbeat([job]) == {(job.id, 1)}
    assert mill.worker().complete(job, generated())
    assert mill.states(batch_id) == ["succeeded", "queued"]


def test_a_resumed_batch_is_announced_again(mill: Mill) -> None:
    batch_id = mill.submit(3)
    mill.outbox.mark_published(mill.outbox.unpublished("m", 2))
    mill.batches.pause(batch_id)
    assert mill.outbox.published("m") == 0, "its messages no longer count for the watermark"
    mill.batches.resume(batch_id)
    assert len(mill.outbox.unpublished("m", 10)) == 3
    mill.claim(mill.job_ids(batch_id)[0])


def test_a_paused_batch_can_be_cancelled_and_expires(mill: Mill) -> None:
    cancelled, expires = mill.submit(1), mill.submit(1, key="other", deadline_s=10)
    for batch_id in (cancelled, expires):
        mill.batches.pause(batch_id)
    mill.batches.cancel(cancelled)
    mill.let_pass(11)
    for _ in range(2):
        mill.finish_batches()
    assert [mill.of_batch(batch).state for batch in (cancelled, expires)] == ["cancelled", "expired"]
    mill.check()


def test_a_batch_that_has_ended_cannot_be_paused(mill: Mill) -> None:
    batch_id = mill.submit(1)
    mill.batches.cancel(batch_id)
    mill.finish_batches()
    with pytest.raises(WrongState, match="only an active batch"):
        mill.batches.pause(batch_id)


def test_a_paused_worker_hears_of_it_at_its_next_heartbeat(mill: Mill) -> None:
    worker = mill.register("host/gpu0", slots=4)
    assert worker.seen(running=1) is False
    pause_worker(mill.database, "host/gpu0")
    assert worker.seen(running=1) is True
    resume_worker(mill.database, "host/gpu0")
    assert worker.seen(running=0) is False


def test_pausing_a_worker_that_is_not_there_names_those_that_are(mill: Mill) -> None:
    mill.register("host/gpu0", slots=4)
    mill.register("host/gone", slots=4).stopped()
    with pytest.raises(NoSuchWorker, match=r"active workers: host/gpu0$"):
        pause_worker(mill.database, "host/gone")
