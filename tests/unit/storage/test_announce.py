from __future__ import annotations

from docmill.storage.moves.announce import Publishable
from tests.unit.storage.conftest import Mill


def publish(mill: Mill, limit: int = 1000, model: str = "m") -> list[int]:
    """Announce the jobs that are due, as the dispatcher does. Returns their ids."""
    jobs = mill.outbox.unpublished(model, limit)
    mill.outbox.mark_published(jobs)
    return [job.id for job in jobs]


def test_jobs_come_in_order_of_priority_then_batch_then_age(mill: Mill) -> None:
    late = mill.submit(2, priority=5)
    mill.let_pass(1)
    later = mill.submit(2, priority=5)
    urgent = mill.submit(1, priority=0)
    merging = mill.create(priority=5, key="levels")
    mill.document(merging, 1, priority=5)
    mill.document(merging, 1, priority=4)
    mill.new_batches.start(merging)
    first_level, next_level = mill.job_ids(merging)
    expected = [*mill.job_ids(urgent), *mill.job_ids(late), *mill.job_ids(later), next_level, first_level]
    assert [job.id for job in mill.outbox.unpublished("m", 100)] == expected
    assert [job.id for job in mill.outbox.unpublished("m", 2)] == expected[:2]


def test_a_message_says_which_batch_document_level_and_index(mill: Mill) -> None:
    batch_id = mill.submit(1, 2)
    job = mill.outbox.unpublished("m", 10)[2]
    assert job == Publishable(
        id=job.id, epoch=0, model="m", priority=5, batch_id=batch_id, document="d1", level=0, position=1
    )


def test_only_batches_in_progress_of_the_model_are_published(mill: Mill) -> None:
    mill.document(mill.create(key="validating"), 1)
    mill.submit(1, model="other")
    cancelled = mill.submit(1)
    mill.batches.cancel(cancelled)
    assert mill.outbox.unpublished("m", 10) == []
    assert mill.outbox.models_at_work() == ["other"]


def test_a_published_job_is_not_published_again_and_counts_until_it_is_claimed(mill: Mill) -> None:
    batch_id = mill.submit(3)
    assert publish(mill, limit=2) == mill.job_ids(batch_id)[:2]
    assert mill.outbox.published("m") == 2
    assert publish(mill) == mill.job_ids(batch_id)[2:]
    mill.claim(mill.job_ids(batch_id)[0])
    assert mill.outbox.published("m") == 2


def test_a_job_that_waits_for_its_time_is_not_published(mill: Mill) -> None:
    (job_id,) = mill.job_ids(mill.submit(1))
    mill.change("UPDATE jobs SET not_before = created_at + 60")
    assert publish(mill) == []
    mill.let_pass(61)
    assert publish(mill) == [job_id]


def test_mark_published_does_not_change_a_job_that_was_claimed_since(mill: Mill) -> None:
    claimed, claimed_and_back = mill.job_ids(mill.submit(2))
    found = mill.outbox.unpublished("m", 10)
    mill.claim(claimed)
    mill.worker().release(mill.claim(claimed_and_back))
    mill.outbox.mark_published(found)
    assert mill.job(claimed).published_at is None
    assert mill.job(claimed_and_back).published_at is None, "its next attempt has not been announced"


def test_as_many_jobs_as_a_large_watermark_allows_can_be_marked(mill: Mill) -> None:
    job_id = mill.job_ids(mill.submit(1))[0]
    (real,) = mill.outbox.unpublished("m", 1)
    gone = [Publishable(10**6 + n, 0, "m", 5, real.batch_id, "d", 0, n) for n in range(20_000)]
    mill.outbox.mark_published([*gone, real])
    assert mill.job(job_id).publishes == 1


def test_an_unclaimed_message_is_overdue_after_increasing_waits(mill: Mill) -> None:
    job_id = mill.job_ids(mill.submit(1))[0]
    publish(mill)
    for announcements, wait_s in ((1, 60), (2, 240), (3, 540)):
        assert mill.job(job_id).publishes == announcements
        mill.let_pass(wait_s - 5)
        assert mill.outbox.overdue("m", age_s=60, limit=10) == []
        mill.let_pass(10)
        overdue = mill.outbox.overdue("m", age_s=60, limit=10)
        assert [job.id for job in overdue] == [job_id]
        mill.outbox.mark_published(overdue)


def test_overdue_is_found_whatever_the_length_of_the_queue(mill: Mill) -> None:
    lost = mill.job_ids(mill.submit(2))
    publish(mill)
    mill.let_pass(100)
    mill.submit(50)
    publish(mill)
    assert [job.id for job in mill.outbox.overdue("m", age_s=60, limit=10)] == lost
    assert [job.id for job in mill.outbox.overdue("m", age_s=60, limit=1)] == lost[:1]


def test_slots_are_those_of_workers_seen_lately(mill: Mill) -> None:
    mill.register("away", slots=100)
    mill.let_pass(61)
    mill.register("a", slots=4)
    mill.register("b", slots=8)
    mill.register("stopped", slots=16).stopped()
    mill.register("other model", slots=32, model="x")
    assert mill.outbox.slots("m") == 12
    assert mill.outbox.slots("a model without workers") == 0


def test_a_job_that_was_taken_back_is_announced_ahead_of_those_that_were_not_begun(mill: Mill) -> None:
    urgent, lost, fresh = mill.job_ids(mill.submit(3))
    mill.change("UPDATE jobs SET priority = 0 WHERE id = :job", job=urgent)
    for job_id in (urgent, lost):
        mill.claim(job_id)
    mill.let_pass(31)
    assert mill.rescue(max_losses=3) == 2
    priorities = {job.id: job.priority for job in mill.outbox.unpublished("m", 10)}
    assert priorities == {urgent: 0, lost: 4, fresh: 5}
