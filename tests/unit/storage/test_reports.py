from __future__ import annotations

import pytest

from docmill.storage.errors import NoSuchBatch
from docmill.storage.moves.attempts import Failure
from docmill.storage.states import BatchState, DocumentState, JobState
from tests.unit.storage.conftest import Mill, generated


def test_status_counts_jobs_by_state(mill: Mill) -> None:
    batch_id = mill.submit(4, 2)
    first, second, third, *_ = mill.job_ids(batch_id)
    mill.run(first)
    mill.worker().fail(mill.claim(second), Failure("a", "b"))
    mill.claim(third)
    status = mill.reports.batch(batch_id)
    assert status.jobs_by_state == {
        JobState.QUEUED: 3, JobState.RUNNING: 1, JobState.SUCCEEDED: 1, JobState.FAILED: 1,
        JobState.CANCELLED: 0, JobState.EXPIRED: 0,
    }  # fmt: skip
    assert (status.jobs_total, status.jobs_ended) == (6, 2)
    assert (status.documents_total, status.documents_open) == (2, 2)
    assert (status.prompt_tokens, status.completion_tokens, status.cached_tokens) == (3, 7, 1)
    mill.batches.cancel(batch_id)
    assert mill.reports.batch(batch_id).jobs_by_state[JobState.CANCELLED] == 4


def test_status_of_an_unknown_batch(mill: Mill) -> None:
    with pytest.raises(NoSuchBatch):
        mill.reports.batch("nope")


def test_rate_and_time_left_come_from_what_was_measured(mill: Mill) -> None:
    batch_id = mill.submit(4)
    status = mill.reports.batch(batch_id)
    assert (status.tokens_per_s, status.eta_s) == (None, None), "nothing is measured yet"
    running = [mill.claim(job_id) for job_id in mill.job_ids(batch_id)[:2]]
    mill.let_pass(10)
    for job in running:
        mill.worker().complete(job, generated(prompt_tokens=300, completion_tokens=200))
    status = mill.reports.batch(batch_id)
    assert status.tokens_per_s == pytest.approx(1000 / 10, rel=0.2)
    assert status.eta_s == pytest.approx(2 * 500 / (1000 / 10), rel=0.2)


def test_rate_of_an_ended_batch_is_that_of_its_whole_working_time(mill: Mill) -> None:
    batch_id = mill.submit(1)
    (job_id,) = mill.job_ids(batch_id)
    job = mill.claim(job_id)
    mill.let_pass(20)
    mill.worker().complete(job, generated(prompt_tokens=300, completion_tokens=100))
    mill.documents.finish(mill.documents.with_ended_level()[0], text=None, has_one_result=True)
    mill.finish_batches()
    mill.let_pass(100_000)
    status = mill.reports.batch(batch_id)
    assert status.state is BatchState.COMPLETED
    assert status.tokens_per_s == pytest.approx(400 / 20, rel=0.2)
    assert status.eta_s is None
    assert status.ended_at is not None
    assert status.elapsed_s < 1000


def test_recent_rate_of_a_model_is_over_its_newest_attempts(mill: Mill) -> None:
    assert mill.reports.recent_tokens_per_s("m") is None
    batch_id = mill.submit(2)
    for job_id in mill.job_ids(batch_id):
        mill.worker().complete(mill.claim(job_id), generated(prompt_tokens=300, completion_tokens=200))
    mill.change("UPDATE attempts SET started_at = finished_at - 10")
    assert mill.reports.recent_tokens_per_s("m") == pytest.approx(1000 / 10, rel=0.2)
    assert mill.reports.recent_tokens_per_s("other") is None
    mill.let_pass(8 * 24 * 3600)
    assert mill.reports.recent_tokens_per_s("m") is None


def test_the_newest_batches_come_first(mill: Mill) -> None:
    ids = []
    for _ in range(3):
        ids.append(mill.submit(1))
        mill.let_pass(1)
    assert [status.id for status in mill.reports.batches()] == ids[::-1]
    assert [status.id for status in mill.reports.batches(limit=1)] == ids[-1:]


def test_failures_are_grouped_by_kind_the_most_frequent_first(mill: Mill) -> None:
    batch_id = mill.submit(4)
    for job_id, kind in zip(mill.job_ids(batch_id), ("Poison", "WorkerLost", "WorkerLost", "Poison"), strict=True):
        mill.worker().fail(mill.claim(job_id), Failure(kind if job_id % 4 else "WorkerLost", f"{kind} said why"))
    found = {reason.kind: reason.count for reason in mill.reports.failures(batch_id)}
    assert sum(found.values()) == 4
    counts = [reason.count for reason in mill.reports.failures(batch_id)]
    assert counts == sorted(counts, reverse=True)
    assert all(reason.example.endswith("said why") for reason in mill.reports.failures(batch_id))


def test_workers_are_those_seen_lately_that_have_not_stopped(mill: Mill) -> None:
    mill.register("gone", slots=1)
    mill.let_pass(61)
    mill.register("stopped", slots=1).stopped()
    beating = mill.register("host/cpu-1", slots=8)
    beating.seen(running=5)
    (worker,) = mill.reports.workers()
    assert (worker.name, worker.slots, worker.running, worker.engine) == ("host/cpu-1", 8, 5, "simulated")
    mill.let_pass(59)
    assert len(mill.reports.workers()) == 1
    mill.let_pass(2)
    assert mill.reports.workers() == []
    beating.seen(running=0)
    assert len(mill.reports.workers()) == 1, "it was only away"


def test_documents_come_in_input_order_across_pages(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("docmill.storage.reads.documents.PAGE", 7)
    batch_id = mill.create()
    for number in range(23):
        mill.document(batch_id, 1, name=f"d{number}")
    mill.new_batches.start(batch_id)
    for job_id in reversed(mill.job_ids(batch_id)):
        mill.run(job_id, f"summary {job_id}")
    for ended in mill.documents.with_ended_level():
        mill.documents.finish(ended, text=None, has_one_result=True)
    reports = list(mill.reports.documents(batch_id))
    assert [report.name for report in reports] == [f"d{number}" for number in range(23)]
    assert [report.position for report in reports] == list(range(23))
    assert [report.summary for report in reports] == [f"summary {job_id}" for job_id in mill.job_ids(batch_id)]


def test_more_documents_than_a_page_holds_are_all_reported(sqlite_mill: Mill) -> None:
    mill = sqlite_mill
    batch_id = mill.create()
    for number in range(450):
        mill.document(batch_id, 1, name=f"d{number}")
    mill.new_batches.start(batch_id)
    assert [report.name for report in mill.reports.documents(batch_id)] == [f"d{number}" for number in range(450)]


def test_a_document_reports_its_usage_remarks_and_error(mill: Mill) -> None:
    batch_id = mill.submit(2, 1, 1)
    first, second, bad, _ = mill.job_ids(batch_id)
    mill.worker().release(mill.claim(first))
    for job_id in (first, second):
        mill.run(job_id)
    mill.worker().fail(mill.claim(bad), Failure("Poison", "dead"))
    whole, broken = mill.documents.with_ended_level()
    mill.documents.finish(whole, text="joined", has_one_result=True)
    mill.documents.fail(broken, "1 job failed")
    done, failed, waiting = mill.reports.documents(batch_id)
    assert (done.state, done.summary, done.levels, done.chunk_count) == (DocumentState.DONE, "joined", 1, 2)
    assert (done.prompt_tokens, done.cached_tokens, done.completion_tokens) == (6, 2, 14)
    assert done.seconds == pytest.approx(1.0)
    assert (failed.state, failed.error, failed.summary) == (DocumentState.FAILED, "1 job failed", None)
    assert (waiting.state, waiting.summary, waiting.seconds) == (DocumentState.OPEN, None, None)


def test_windows_answer_alone_where_nothing_was_merged(mill: Mill) -> None:
    batch_id = mill.submit(3)
    for job_id, text in zip(mill.job_ids(batch_id), ("one", "two", "three"), strict=True):
        mill.run(job_id, text)
    mill.documents.finish(mill.documents.with_ended_level()[0], text=None, has_one_result=False)
    (report,) = mill.reports.documents(batch_id)
    assert report.summary is None
    assert [(w.position, w.char_start, w.char_end, w.text) for w in report.windows] == [
        (0, 0, 10, "one"), (1, 10, 20, "two"), (2, 20, 30, "three"),
    ]  # fmt: skip
