from __future__ import annotations

import pytest
import sqlalchemy as sa

import docmill.storage.views
from docmill.storage.moves.attempts import ClaimedJob, Failure, ReusedJob
from docmill.storage.moves.workers import Sample
from docmill.storage.views import VIEWS, Rows, attempts_of, documents_of, jobs_of
from tests.unit.storage.conftest import Mill, generated

# Numbers that are wrong in the last digits of a double are right.
_NEARLY = 1e-6


def records(rows: Rows) -> list[dict[str, object]]:
    return [dict(zip(rows.columns, row, strict=True)) for row in rows.values]


def sample(**values: object) -> Sample:
    common: dict[str, object] = {
        "running": 2, "slots": 4, "rss_bytes": 1 << 30, "worker_cpu_percent": 5.0, "engine_cpu_percent": 190.0,
        "vram_bytes": None, "gpu_percent": None, "power_w": None, "jobs": 1, "prompt_tokens": 10, "cached_tokens": 4,
        "completion_tokens": 6,
    }  # fmt: skip
    return Sample(**(common | values))  # type: ignore[arg-type]


def test_the_views_have_the_columns_that_are_promised_in_their_order(mill: Mill) -> None:
    inspector = sa.inspect(mill.database.engine)
    assert set(inspector.get_view_names()) == set(VIEWS)
    for view, columns in VIEWS.items():
        assert [column["name"] for column in inspector.get_columns(view)] == list(columns), view


def test_a_job_is_shown_with_its_last_attempt_and_its_answer(mill: Mill) -> None:
    batch_id = mill.submit(2)
    first, second = mill.job_ids(batch_id)
    mill.worker().retry(mill.claim(first), Failure("EngineFailed", "it broke"), delay_s=0.0)
    mill.run(first, "the answer")
    mill.worker().fail(mill.claim(second), Failure("PromptTooLong", "too long"))
    done, failed = records(jobs_of(mill.database, batch_id))
    assert done["document"] == "d0"
    assert (done["state"], done["attempts"], done["failures"], done["text"]) == ("succeeded", 2, 1, "the answer")
    assert (done["char_start"], done["char_end"], done["finish_reason"]) == (0, 10, "stop")
    assert (done["queue_s"], done["prefill_s"], done["decode_s"], done["batch_size"]) == (0.1, 0.2, 0.3, 2.5)
    assert abs(float(str(done["engine_s"])) - 0.5 / 2.5) < _NEARLY
    assert abs(float(str(done["tokens_per_s"])) - 7 / 0.3) < _NEARLY
    assert abs(float(str(done["prefill_tokens_per_s"])) - (3 - 1) / 0.2) < _NEARLY
    assert (failed["state"], failed["error_kind"], failed["error"]) == ("failed", "PromptTooLong", "too long")
    assert failed["text"] is None
    assert failed["tokens_per_s"] is None
    outcomes = [(row["job"], row["attempt"], row["outcome"]) for row in records(attempts_of(mill.database, batch_id))]
    assert outcomes == [(first, 1, "failed"), (first, 2, "succeeded"), (second, 1, "failed")]


def test_a_document_counts_what_was_computed_for_it_and_what_was_reused(mill: Mill) -> None:
    computed = mill.submit(2, reuse_key="equal")
    first, second = mill.job_ids(computed)
    mill.run(first)
    assert isinstance(mill.worker().claim(second), ReusedJob)
    (document,) = records(documents_of(mill.database, computed))
    assert (document["jobs"], document["jobs_reused"], document["jobs_failed"]) == (2, 1, 0)
    assert (document["prompt_tokens"], document["cached_tokens"], document["completion_tokens"]) == (3, 1, 7)
    reused = records(jobs_of(mill.database, computed))[1]
    assert (reused["reused_from"], reused["reused_tokens"], reused["completion_tokens"]) == (first, 3 + 7, None)


def test_a_document_has_its_summary_and_how_long_it_took(mill: Mill) -> None:
    batch_id = mill.submit(1)
    mill.run(mill.job_ids(batch_id)[0], "the summary")
    mill.documents.finish(mill.documents.with_ended_level()[0], text=None, has_one_result=True)
    mill.change("UPDATE documents SET created_at = finished_at - 90")
    (document,) = records(documents_of(mill.database, batch_id))
    assert (document["state"], document["summary"], document["levels"]) == ("done", "the summary", 1)
    assert abs(float(str(document["seconds"])) - 90) < _NEARLY


def test_rows_of_a_batch_are_read_in_pages_and_no_other_batch_is_among_them(
    mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docmill.storage.views, "_PAGE", 3)
    mill.submit(1, key="before")
    batch_id = mill.submit(2, 1, 1, 4)
    mill.submit(1, key="after")
    job_ids = mill.job_ids(batch_id)
    for job_id in job_ids[1:7]:
        mill.worker().retry(mill.claim(job_id), Failure("a", "b"), delay_s=0.0)
        mill.run(job_id)
    assert [row["job"] for row in records(jobs_of(mill.database, batch_id))] == job_ids
    documents = [row["document_id"] for row in records(documents_of(mill.database, batch_id))]
    assert documents == mill.document_ids(batch_id)
    attempts = [(row["job"], row["attempt"]) for row in records(attempts_of(mill.database, batch_id))]
    assert attempts == [(job_id, attempt) for job_id in job_ids[1:7] for attempt in (1, 2)]


def test_no_rows_of_a_batch_without_documents(mill: Mill) -> None:
    batch_id = mill.create()
    assert [records(of(mill.database, batch_id)) for of in (documents_of, jobs_of, attempts_of)] == [[], [], []]


def test_the_wait_is_from_when_a_job_could_have_run_until_it_was_claimed(mill: Mill) -> None:
    batch_id = mill.submit(1)
    (job_id,) = mill.job_ids(batch_id)
    mill.let_pass(100)
    job = mill.claim(job_id)
    assert 100 <= mill.attempts(job_id)[0].waited_s < 130
    mill.worker().retry(job, Failure("EngineFailed", "it broke"), delay_s=50.0)
    mill.let_pass(80)
    mill.run(job_id)
    assert 30 <= mill.attempts(job_id)[1].waited_s < 60, "a back-off is no wait"


def test_a_released_job_waits_from_its_release_and_a_retried_one_from_the_retry(mill: Mill) -> None:
    batch_id = mill.submit(1)
    (job_id,) = mill.job_ids(batch_id)
    mill.let_pass(1000)
    mill.worker().release(mill.claim(job_id))
    mill.let_pass(40)
    mill.worker().fail(mill.claim(job_id), Failure("a", "b"))
    assert 40 <= mill.attempts(job_id)[1].waited_s < 70
    mill.let_pass(1000)
    mill.batches.retry_failed(batch_id)
    mill.claim(job_id)
    assert 0 <= mill.attempts(job_id)[2].waited_s < 30


def test_a_heartbeat_stores_a_sample_and_the_worker_is_judged_by_its_own(mill: Mill) -> None:
    workers = mill.register("host/gpu0", slots=4)
    workers.seen(running=2, sample=sample())
    mill.change("UPDATE worker_samples SET at = at - 10")
    workers.seen(running=7, sample=sample(running=7, jobs=3, prompt_tokens=110, completion_tokens=46, power_w=90.0))
    mill.change("UPDATE workers SET started_at = started_at - 60")
    (worker,) = mill.rows("SELECT * FROM v_workers")
    assert (worker.state, worker.slots, worker.slots_used, worker.samples) == ("running", 4, 4, 2)
    assert abs(worker.occupancy - 0.75) < _NEARLY, "jobs that wait in the engine fill no slot"
    assert (worker.jobs, worker.prompt_tokens, worker.completion_tokens) == (3, 110, 46)
    assert (worker.power_w, worker.peak_rss_bytes) == (90.0, 1 << 30)
    first, second = mill.rows("SELECT * FROM v_samples ORDER BY at")
    assert first.tokens_per_s is None
    assert 100 / 15 < second.tokens_per_s <= 140 / 10
    workers.register(slots=4)
    (again,) = mill.rows("SELECT * FROM v_workers")
    assert (again.samples, again.occupancy, again.jobs) == (0, None, 0), "what an earlier one of the name did"


def test_workers_that_stopped_paused_or_were_lost_are_distinguished(mill: Mill) -> None:
    for name in ("ended", "paused", "vanished"):
        mill.register(name, slots=1)
    mill.register("ended", slots=1).stopped()
    mill.change("UPDATE workers SET paused_at = seen_at WHERE name = 'paused'")
    mill.change("UPDATE workers SET seen_at = seen_at - 61 WHERE name = 'vanished'")
    states = {row.worker: row.state for row in mill.rows("SELECT * FROM v_workers")}
    assert states == {"ended": "stopped", "paused": "paused", "vanished": "lost"}


def test_old_samples_are_removed_when_a_worker_registers(mill: Mill) -> None:
    workers = mill.register("w", slots=4)
    workers.seen(running=0, sample=sample())
    mill.change("UPDATE worker_samples SET at = at - 8 * 86400")
    workers.seen(running=0, sample=sample())
    mill.register("other", slots=1)
    assert len(mill.rows("SELECT * FROM worker_samples")) == 1


def test_throughput_counts_the_attempts_that_ended_in_a_minute(mill: Mill) -> None:
    batch_id = mill.submit(4)
    jobs: list[ClaimedJob] = [mill.claim(job_id) for job_id in mill.job_ids(batch_id)]
    for job in jobs[:2]:
        mill.worker().complete(job, generated(prompt_tokens=300, completion_tokens=60))
    mill.worker().fail(jobs[2], Failure("a", "b"))
    mill.change("UPDATE attempts SET finished_at = 1764028860.5 WHERE finished_at IS NOT NULL")
    mill.worker().complete(jobs[3], generated())
    then, _ = mill.rows("SELECT * FROM v_throughput ORDER BY at")
    assert (then.day, then.at, then.batch) == ("2025-11-25", 1764028860, batch_id)
    assert (then.succeeded, then.failed, then.reused) == (2, 1, 0)
    assert (then.prompt_tokens, then.cached_tokens, then.completion_tokens) == (600, 2, 120)
    assert abs(then.tokens_per_s - 12) < _NEARLY
