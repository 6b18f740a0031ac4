from __future__ import annotations

from collections.abc import Callable

import pytest

from docmill.storage.moves.attempts import Failure
from docmill.storage.moves.documents import Documents, EndedLevel
from tests.unit.storage.conftest import Mill, generated, new_jobs


def test_a_level_has_ended_when_its_last_job_has(mill: Mill) -> None:
    batch_id = mill.submit(2, 1)
    first, second, _ = mill.job_ids(batch_id)
    mill.run(first)
    assert mill.documents.with_ended_level() == []
    mill.run(second)
    (ended,) = mill.documents.with_ended_level()
    assert (ended.batch_id, ended.name, ended.level, ended.chunk_count, ended.failed_jobs) == (batch_id, "d0", 0, 2, 0)


def test_results_come_in_order_of_their_position(mill: Mill) -> None:
    batch_id = mill.submit(3)
    for job_id, text in reversed(list(zip(mill.job_ids(batch_id), ("one", "two", "three"), strict=True))):
        mill.run(job_id, text)
    (document_id,) = mill.document_ids(batch_id)
    assert [result.text for result in mill.documents.results(document_id, 0)] == ["one", "two", "three"]
    assert mill.documents.chunk_text(document_id, 1) == "chunk 1"


def test_the_next_level_begins_only_once(mill: Mill) -> None:
    batch_id = mill.submit(4)
    for job_id in mill.job_ids(batch_id):
        mill.run(job_id)
    (ended,) = mill.documents.with_ended_level()
    assert mill.documents.begin_level(ended, new_jobs(2, level=1), remark="cut")
    assert not mill.documents.begin_level(ended, new_jobs(2, level=1))
    assert not mill.documents.finish(ended, text="joined", has_one_result=True)
    assert not mill.documents.fail(ended, "no")
    document = mill.of_document(ended.document_id)
    assert (document.state, document.level, document.open_jobs) == ("merging", 1, 2)
    batch = mill.of_batch(batch_id)
    assert (batch.jobs_total, batch.tokens_planned) == (6, 6 * 13)
    assert mill.documents.with_ended_level() == []


def test_the_only_job_of_a_level_writes_the_final_result(mill: Mill) -> None:
    batch_id = mill.submit(2)
    for job_id in mill.job_ids(batch_id):
        mill.run(job_id)
    (ended,) = mill.documents.with_ended_level()
    mill.documents.begin_level(ended, new_jobs(1, level=1))
    mill.run(mill.job_ids(batch_id)[-1], "the summary")
    (ended,) = mill.documents.with_ended_level()
    assert mill.documents.finish(ended, text=None, has_one_result=True)
    assert [row.text for row in mill.rows("SELECT text FROM results WHERE final")] == ["the summary"]
    assert mill.of_document(ended.document_id).state == "done"


def test_joined_answers_become_a_final_result_of_no_job(mill: Mill) -> None:
    batch_id = mill.submit(2)
    for job_id in mill.job_ids(batch_id):
        mill.run(job_id)
    (ended,) = mill.documents.with_ended_level()
    assert mill.documents.finish(ended, text="one and two", has_one_result=True)
    assert not mill.documents.finish(ended, text="one and two", has_one_result=True)
    (final,) = mill.rows("SELECT * FROM results WHERE final")
    assert (final.text, final.job_id, final.finish_reason, final.completion_tokens) == (
        "one and two",
        None,
        "joined",
        14,
    )
    assert mill.of_batch(batch_id).documents_open == 0


def test_windows_that_answer_alone_have_no_final_result(mill: Mill) -> None:
    for job_id in mill.job_ids(mill.submit(2)):
        mill.run(job_id)
    (ended,) = mill.documents.with_ended_level()
    assert mill.documents.finish(ended, text=None, has_one_result=False)
    assert mill.rows("SELECT * FROM results WHERE final") == []


@pytest.mark.parametrize(
    "move",
    [
        lambda levels, ended: levels.finish(ended, text="joined", has_one_result=True),
        lambda levels, ended: levels.begin_level(ended, new_jobs(1, level=1)),
    ],
    ids=["finish", "begin the next level"],
)
def test_a_document_with_a_failed_job_can_only_fail(mill: Mill, move: Callable[[Documents, EndedLevel], bool]) -> None:
    good, bad = mill.job_ids(mill.submit(2))
    mill.run(good)
    mill.worker().fail(mill.claim(bad), Failure("a", "b"))
    (ended,) = mill.documents.with_ended_level()
    with pytest.raises(ValueError, match="has 1 failed jobs: it can only fail"):
        move(mill.documents, ended)
    assert mill.documents.with_ended_level() == [ended]
    assert mill.documents.fail(ended, "a job failed")


def test_a_failed_document_says_why_and_keeps_its_results(mill: Mill) -> None:
    batch_id = mill.submit(2)
    good, bad = mill.job_ids(batch_id)
    mill.run(good)
    mill.worker().fail(mill.claim(bad), Failure("Poison", "it killed the engine"))
    (ended,) = mill.documents.with_ended_level()
    assert ended.failed_jobs == 1
    assert mill.documents.first_failure(ended.document_id) == "level 0, job 1: Poison: it killed the engine"
    assert mill.documents.fail(ended, "1 job failed")
    document, batch = mill.of_document(ended.document_id), mill.of_batch(batch_id)
    assert (document.state, document.error) == ("failed", "1 job failed")
    assert (batch.documents_failed, batch.documents_open) == (1, 0)
    assert len(mill.rows("SELECT * FROM results")) == 1


def test_a_document_that_was_retried_in_between_is_not_failed(mill: Mill) -> None:
    batch_id = mill.submit(1)
    (job_id,) = mill.job_ids(batch_id)
    mill.worker().fail(mill.claim(job_id), Failure("a", "b"))
    (ended,) = mill.documents.with_ended_level()
    mill.batches.retry_failed(batch_id)
    assert not mill.documents.fail(ended, "too late")
    mill.run(job_id)
    assert not mill.documents.fail(ended, "it has succeeded by now")


def test_a_batch_completes_when_its_last_document_has_ended(mill: Mill) -> None:
    batch_id = mill.submit(1, 1)
    for job_id in mill.job_ids(batch_id):
        mill.run(job_id)
    first, second = mill.documents.with_ended_level()
    mill.documents.finish(first, text=None, has_one_result=True)
    mill.finish_batches()
    assert mill.of_batch(batch_id).state == "in_progress"
    mill.documents.fail(second, "merging does not shrink")
    mill.finish_batches()
    batch = mill.of_batch(batch_id)
    assert (batch.state, batch.documents_failed) == ("completed", 1)
    assert batch.in_progress_at <= batch.finalizing_at <= batch.completed_at


def test_a_cancelled_batch_begins_no_level(mill: Mill) -> None:
    batch_id = mill.submit(2)
    for job_id in mill.job_ids(batch_id):
        mill.run(job_id)
    (ended,) = mill.documents.with_ended_level()
    mill.batches.cancel(batch_id)
    assert mill.documents.with_ended_level() == []
    assert not mill.documents.begin_level(ended, new_jobs(1, level=1))
    assert not mill.documents.finish(ended, text="x", has_one_result=True)
    mill.finish_batches()
    assert mill.of_batch(batch_id).state == "cancelled"


def test_a_half_written_document_has_not_ended(mill: Mill) -> None:
    batch_id = mill.create()
    mill.document(batch_id, 1)
    mill.document(batch_id, 1, finish=False)
    mill.change("UPDATE batches SET state = 'in_progress'")
    first, _ = mill.job_ids(batch_id)
    assert mill.worker().complete(mill.claim(first), generated())
    assert [ended.document_id for ended in mill.documents.with_ended_level()] == mill.document_ids(batch_id)[:1]
