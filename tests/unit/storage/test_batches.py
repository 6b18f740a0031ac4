from __future__ import annotations

import pytest

from docmill.storage.database import Database
from docmill.storage.errors import AmbiguousBatch, NoSuchBatch, WrongState
from docmill.storage.moves import batches
from docmill.storage.moves.attempts import Failure
from docmill.storage.moves.new_batches import NewChunk
from docmill.storage.states import JobState
from tests.unit.storage.conftest import Mill, generated, new_jobs

FAILURE = Failure("EngineFailed", "it raised")


def fail(mill: Mill, job_id: int) -> None:
    assert mill.worker().fail(mill.claim(job_id), FAILURE)


def fail_documents(mill: Mill) -> None:
    """Fail the documents whose jobs have failed, as the dispatcher does."""
    for ended in mill.documents.with_ended_level():
        assert mill.documents.fail(ended, "a job failed")
    mill.finish_batches()


def test_find_takes_an_id_its_beginning_or_latest(mill: Mill) -> None:
    first = mill.submit(1)
    mill.let_pass(1)
    second = mill.submit(1)
    assert mill.batches.find(first).id == first
    assert mill.batches.find(first[:-1]).id == first
    assert mill.batches.find("latest").id == second
    with pytest.raises(AmbiguousBatch):
        mill.batches.find(first[:6])
    for nothing in ("nope", "%", "______"):
        with pytest.raises(NoSuchBatch):
            mill.batches.find(nothing)


def test_latest_of_nothing_says_that_there_is_no_batch(mill: Mill) -> None:
    with pytest.raises(NoSuchBatch):
        mill.batches.find("latest")


def test_cancel_stops_queued_and_running_jobs_and_keeps_what_is_finished(mill: Mill) -> None:
    batch_id, other = mill.submit(3, 2), mill.submit(1)
    done, running, *_ = mill.job_ids(batch_id)
    mill.run(done)
    held = mill.claim(running)
    assert mill.batches.cancel(batch_id) == 4
    assert mill.states(batch_id) == ["succeeded", *["cancelled"] * 4]
    assert {row.state for row in mill.rows("SELECT state FROM documents WHERE batch_id = :b", b=batch_id)} == {
        "cancelled"
    }
    assert mill.outcomes(running) == ["cancelled"]
    assert mill.worker().heartbeat([held]) == set(), "its worker learns it at the next heartbeat"
    assert not mill.worker().complete(held, generated())
    batch = mill.of_batch(batch_id)
    assert (batch.state, batch.jobs_cancelled, batch.documents_open) == ("cancelling", 4, 0)
    mill.finish_batches()
    assert mill.of_batch(batch_id).state == "cancelled"
    assert mill.of_batch(batch_id).cancelled_at is not None
    assert mill.states(other) == ["queued"]


def test_cancel_also_counts_the_jobs_that_a_dispatcher_cancels_first(
    mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = mill.submit(2)
    end_unfinished_work = batches.end_unfinished_work

    def after_a_dispatcher(database: Database, batch_id: str, state: JobState) -> int:
        mill.finish_batches()
        return end_unfinished_work(database, batch_id, state)

    monkeypatch.setattr(batches, "end_unfinished_work", after_a_dispatcher)
    assert mill.batches.cancel(batch_id) == 2


def test_cancel_again_goes_on_and_an_ended_batch_refuses(mill: Mill) -> None:
    batch_id = mill.submit(2)
    assert mill.batches.cancel(batch_id) == 2
    assert mill.batches.cancel(batch_id) == 0
    mill.finish_batches()
    with pytest.raises(WrongState, match="cancelled"):
        mill.batches.cancel(batch_id)


def test_a_job_that_finishes_while_its_batch_is_cancelled_is_counted_right(mill: Mill) -> None:
    batch_id = mill.submit(2)
    job = mill.claim(mill.job_ids(batch_id)[0])
    with mill.database.write() as session:  # the canceller dies between its two steps
        session.connection().exec_driver_sql("UPDATE batches SET state = 'cancelling', documents_open = 0")
        session.connection().exec_driver_sql("UPDATE documents SET state = 'cancelled', finished_at = 1")
    assert mill.worker().complete(job, generated())
    mill.check()
    mill.finish_batches()
    mill.finish_batches()
    assert mill.states(batch_id) == ["succeeded", "cancelled"]
    assert mill.of_batch(batch_id).state == "cancelled"


def test_a_batch_of_many_slices_is_cancelled_whole(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("docmill.storage.moves.finish_batches._SLICE", 3)
    batch_id = mill.submit(*[1] * 5, 7)
    for job_id in mill.job_ids(batch_id)[:4]:
        mill.claim(job_id)
    assert mill.batches.cancel(batch_id) == 12
    assert set(mill.states(batch_id)) == {"cancelled"}


def test_cancel_of_a_batch_being_written_stops_its_writer(mill: Mill) -> None:
    batch_id = mill.create()
    mill.document(batch_id, 2)
    half = mill.document(batch_id, 2, finish=False)
    assert mill.batches.cancel(batch_id) == 2
    another = mill.create(key="another")
    theirs = mill.document(another, 2, finish=False)
    assert (theirs == half) is mill.database.is_sqlite, "SQLite gives the id of a deleted row away again"
    for write in (
        lambda: mill.new_batches.add_jobs(batch_id, half, new_jobs(1)),
        lambda: mill.new_batches.add_chunks(batch_id, half, [NewChunk(2, 20, 30, 3, "not theirs")]),
        lambda: mill.new_batches.finish_document(
            batch_id, half, characters=1, tokens=1, chunk_count=1, max_tokens=None
        ),
        lambda: mill.document(batch_id, 1),
        lambda: mill.new_batches.start(batch_id),
    ):
        with pytest.raises(WrongState, match="cancel"):
            write()
    mill.finish_batches()
    assert mill.of_batch(batch_id).state == "cancelled"
    assert mill.states(batch_id) == ["cancelled"] * 2
    assert len(mill.document_ids(batch_id)) == 1, "what was half written is gone"
    assert mill.rows("SELECT * FROM chunks WHERE text = 'not theirs'") == []
    assert mill.of_batch(another).documents_total == 0


def test_a_batch_past_its_deadline_expires_with_all_its_jobs(mill: Mill) -> None:
    batch_id, timeless = mill.submit(3, 1, deadline_s=3600), mill.submit(1)
    done, running, *_ = mill.job_ids(batch_id)
    mill.run(done)
    mill.finish_batches()
    assert mill.of_batch(batch_id).state == "in_progress"
    held = mill.claim(running)
    mill.let_pass(3601)
    mill.finish_batches()
    mill.finish_batches()
    batch = mill.of_batch(batch_id)
    assert (batch.state, batch.jobs_expired, batch.documents_open) == ("expired", 3, 0)
    assert batch.expired_at is not None
    assert mill.states(batch_id) == ["succeeded", *["expired"] * 3]
    assert not mill.worker().complete(held, generated())
    assert mill.of_batch(timeless).state == "in_progress"


def test_an_expiry_is_taken_up_where_its_dispatcher_died(mill: Mill) -> None:
    batch_id = mill.submit(2, deadline_s=10)
    mill.change("UPDATE batches SET state = 'expired'")  # and then it was killed
    for _ in range(2):
        mill.finish_batches()
    assert mill.states(batch_id) == ["expired"] * 2
    assert mill.of_batch(batch_id).expired_at is not None


def test_retry_of_a_completed_batch_redoes_only_what_failed(mill: Mill) -> None:
    batch_id = mill.submit(2, 1)
    bad, good, alone = mill.job_ids(batch_id)
    for job_id in (good, alone):
        mill.run(job_id)
    for _ in range(2):
        assert mill.worker().retry(mill.claim(bad), FAILURE, delay_s=0)
    fail(mill, bad)
    with_failure, whole = mill.documents.with_ended_level()
    assert mill.documents.fail(with_failure, "a job failed")
    assert mill.documents.finish(whole, text=None, has_one_result=True)
    mill.finish_batches()
    batch = mill.of_batch(batch_id)
    assert (batch.state, batch.documents_failed, batch.documents_open) == ("completed", 1, 0)

    assert mill.batches.retry_failed(batch_id) == 1
    job = mill.job(bad)
    assert (job.state, job.failures, job.losses, job.error, job.published_at) == ("queued", 0, 0, None, None)
    batch = mill.of_batch(batch_id)
    assert (batch.state, batch.completed_at) == ("in_progress", None)
    assert (batch.jobs_failed, batch.documents_failed, batch.documents_open) == (0, 0, 1)
    assert mill.of_document(with_failure.document_id).state == "open"
    assert mill.of_document(whole.document_id).state == "done"
    mill.run(bad)
    (ended,) = mill.documents.with_ended_level()
    assert mill.documents.finish(ended, text="joined", has_one_result=True)
    mill.finish_batches()
    assert mill.of_batch(batch_id).state == "completed"
    assert mill.batches.retry_failed(batch_id) == 0
    assert mill.of_batch(batch_id).state == "completed", "nothing to do leaves it as it is"


def test_retry_while_the_batch_runs_takes_the_document_along(mill: Mill) -> None:
    batch_id = mill.submit(2)
    bad, other = mill.job_ids(batch_id)
    fail(mill, bad)
    assert mill.batches.retry_failed(batch_id) == 1
    (document,) = mill.rows("SELECT * FROM documents")
    assert (document.state, document.open_jobs, document.failed_jobs) == ("open", 2, 0)
    for job_id in (bad, other):
        mill.run(job_id)
    assert len(mill.documents.with_ended_level()) == 1


def test_retry_of_a_failed_merge_goes_on_at_its_level(mill: Mill) -> None:
    batch_id = mill.submit(2)
    for job_id in mill.job_ids(batch_id):
        mill.run(job_id)
    (ended,) = mill.documents.with_ended_level()
    assert mill.documents.begin_level(ended, new_jobs(1, level=1))
    merge = mill.job_ids(batch_id)[-1]
    fail(mill, merge)
    fail_documents(mill)
    assert mill.batches.retry_failed(batch_id) == 1
    document = mill.of_document(ended.document_id)
    assert (document.state, document.level, document.open_jobs) == ("merging", 1, 1)


def test_retry_in_slices_reopens_each_document_once(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("docmill.storage.moves.batches._SLICE", 2)
    batch_id = mill.submit(3, 2)
    for job_id in mill.job_ids(batch_id):
        fail(mill, job_id)
    fail_documents(mill)
    assert mill.batches.retry_failed(batch_id) == 5
    batch = mill.of_batch(batch_id)
    assert (batch.documents_open, batch.documents_failed, batch.jobs_failed) == (2, 0, 0)


@pytest.mark.parametrize("state", ["validating", "failed", "expired", "cancelling", "cancelled"])
def test_retry_of_a_batch_that_will_not_run_is_refused_and_changes_nothing(mill: Mill, state: str) -> None:
    batch_id = mill.submit(2, deadline_s=10) if state in ("expired", "cancelling", "cancelled") else mill.create()
    if state == "failed":
        mill.new_batches.refuse(batch_id, "nothing could be read")
    elif state != "validating":
        fail(mill, mill.job_ids(batch_id)[0])
        if state == "expired":
            mill.let_pass(11)
        else:
            mill.batches.cancel(batch_id)
        if state != "cancelling":
            mill.finish_batches()
    before = mill.states(batch_id)
    with pytest.raises(WrongState, match=state):
        mill.batches.retry_failed(batch_id)
    assert mill.states(batch_id) == before
    assert mill.of_batch(batch_id).state == state
