from __future__ import annotations

import random
from dataclasses import replace
from statistics import fmean, quantiles

import pytest
from sqlalchemy import insert

from docmill.insight.report.report_data import read_report
from docmill.storage.database import Database
from docmill.storage.errors import NoSuchBatch
from docmill.storage.reads.batch_timeline import Duration
from docmill.storage.states import AttemptOutcome, BatchState
from docmill.storage.tables import Attempt
from tests.unit.insight.report.batches import BEGAN, Try, add_samples, failed, store


def random_tries(count: int, seed: int) -> list[Try]:
    draw = random.Random(seed)
    return [
        Try(
            began=draw.uniform(0, 50),
            queue=draw.choice([0.0, draw.random()]),
            prefill=draw.uniform(0.01, 2),
            decode=draw.lognormvariate(0, 1),
            waited=draw.expovariate(1),
            prompt=draw.randint(1, 900),
            completion=draw.randint(1, 90),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("count", [2, 3, 10, 101, 997])
def test_percentiles_are_the_exact_ones_of_all_values(database: Database, count: int) -> None:
    tries = random_tries(count, seed=count)
    numbers = read_report(database, store(database, tries).batch)
    for duration, values in (
        (Duration.WAIT, [t.waited for t in tries]),
        (Duration.QUEUE, [t.queue for t in tries]),
        (Duration.PREFILL, [t.prefill for t in tries]),
        (Duration.DECODE, [t.decode for t in tries]),
    ):
        found = numbers.durations[duration]
        known = [value for value in values if value is not None]
        assert found.count == count
        assert found.mean == pytest.approx(fmean(known))
        assert (found.at(0.0), found.at(1.0)) == (min(known), max(known))
        expected = quantiles(known, n=100, method="inclusive")
        assert [found.at(number / 100) for number in range(1, 100)] == pytest.approx(expected)
        assert found.at(0.999) == pytest.approx(quantiles(known, n=1000, method="inclusive")[-1])


def test_one_value_is_every_percentile(database: Database) -> None:
    numbers = read_report(database, store(database, [Try(0, decode=2.5)]).batch)
    assert set(numbers.durations[Duration.DECODE].values) == {2.5}


def test_a_duration_without_measurements_is_left_out(database: Database) -> None:
    batch = store(database, [Try(0, waited=None), Try(1, waited=None)]).batch
    assert Duration.WAIT not in read_report(database, batch).durations


def test_tokens_are_those_of_successful_attempts_and_every_outcome_is_counted(database: Database) -> None:
    tries = [
        Try(0, prompt=100, completion=10, cached=30, energy=500.0),
        Try(1, prompt=200, completion=20, cached=None),
        Try(2, prompt=1000, completion=99, outcome=AttemptOutcome.FENCED),
        Try(3, prompt=400, completion=40, outcome=AttemptOutcome.REUSED, reused_from=1),
        failed(4, "out_of_memory", "no"),
    ]
    numbers = read_report(database, store(database, tries).batch)
    assert (numbers.succeeded.prompt_tokens, numbers.succeeded.completion_tokens) == (300, 30)
    assert (numbers.cached_tokens, numbers.succeeded.cached_measured) == (30, 1)
    assert (numbers.succeeded.energy_j, numbers.succeeded.energy_measured) == (500.0, 1)
    assert numbers.reused_tokens == 440
    assert {outcome: totals.attempts for outcome, totals in numbers.outcomes.items()} == {
        AttemptOutcome.SUCCEEDED: 2, AttemptOutcome.REUSED: 1, AttemptOutcome.FAILED: 1, AttemptOutcome.FENCED: 1,
    }  # fmt: skip
    assert numbers.failure_share == pytest.approx(1 / 3)
    assert numbers.durations[Duration.RUN].count == 2


def test_cached_tokens_are_unknown_if_no_engine_reports_them(database: Database) -> None:
    assert read_report(database, store(database, [Try(0, cached=None)]).batch).cached_tokens is None
    assert read_report(database, store(database, [Try(0, cached=0)]).batch).cached_tokens == 0


def test_the_timeline_is_the_exact_mean_of_each_interval(database: Database) -> None:
    tries = random_tries(60, seed=1)
    numbers = read_report(database, store(database, tries).batch)
    timeline = numbers.timeline
    assert timeline is not None
    began = numbers.span.began_at - BEGAN
    for number in range(len(timeline.running)):
        low = began + number * timeline.width_s
        high = low + timeline.width_s
        running = read = written = 0.0
        for t in tries:
            assert t.queue is not None
            assert t.prefill is not None
            assert t.decode is not None
            entered = t.began + t.queue
            first, last = entered + t.prefill, entered + t.prefill + t.decode
            running += overlap(entered, last, low, high) / timeline.width_s
            read += overlap(entered, first, low, high) / timeline.width_s * t.prompt / t.prefill
            written += overlap(first, last, low, high) / timeline.width_s * (t.completion or 0) / t.decode
        assert timeline.running[number] == pytest.approx(running, abs=1e-4)
        assert timeline.read_per_s[number] == pytest.approx(read, abs=0.05, rel=1e-4)
        assert timeline.written_per_s[number] == pytest.approx(written, abs=0.05, rel=1e-4)


def overlap(begin: float, end: float, low: float, high: float) -> float:
    return max(0.0, min(end, high) - max(begin, low))


def test_the_timeline_includes_every_token_even_of_attempts_that_took_no_time(database: Database) -> None:
    tries = [Try(0, prefill=0.0, decode=5.0, prompt=70), Try(3, prefill=0.5, decode=0.0, completion=1), Try(8)]
    numbers = read_report(database, store(database, tries).batch)
    assert numbers.timeline is not None
    read, written = numbers.timeline.read_per_s, numbers.timeline.written_per_s
    assert sum(read) * numbers.timeline.width_s == pytest.approx(270, rel=0.01)
    assert sum(written) * numbers.timeline.width_s == pytest.approx(21, rel=0.01)


def test_occupancy_counts_each_worker_while_it_had_jobs(database: Database) -> None:
    one_of_two = read_report(database, store(database, [Try(0), Try(3)]).batch)
    assert one_of_two.occupancy == pytest.approx(0.5)
    both = read_report(database, store(database, [Try(0), Try(0), Try(3), Try(3)]).batch)
    assert both.occupancy == pytest.approx(1.0)
    another_for_half_the_time = read_report(
        database, store(database, [*[Try(at) for at in (0, 0, 3, 3)], Try(3, worker="w2")]).batch
    )
    assert another_for_half_the_time.occupancy == pytest.approx(5 / 6)
    assert read_report(database, store(database, [Try(0, worker="forgotten")]).batch).occupancy is None


def test_lost_and_reused_attempts_do_not_count_as_running(database: Database) -> None:
    tries = [
        Try(0, prefill=4.0, decode=4.0),
        Try(0, ended=8.0, outcome=AttemptOutcome.LOST, queue=None, prefill=None, decode=None),
        Try(2, ended=2.0, outcome=AttemptOutcome.REUSED, queue=None, prefill=None, decode=None),
    ]
    numbers = read_report(database, store(database, tries).batch)
    assert numbers.timeline is not None
    assert max(numbers.timeline.running) == pytest.approx(1.0)


def test_an_attempt_that_failed_in_the_engines_queue_never_ran(database: Database) -> None:
    tries = [Try(0, prefill=4.0, decode=4.0), replace(failed(1, "engine_died", "signal 9"), queue=3.0)]
    numbers = read_report(database, store(database, tries).batch)
    assert numbers.timeline is not None
    assert min(numbers.timeline.running) >= 0
    assert max(numbers.timeline.running) == pytest.approx(1.0)


def test_an_attempt_that_runs_counts_until_now(database: Database) -> None:
    running = Try(0, ended=None, outcome=AttemptOutcome.RUNNING, queue=None, prefill=None, decode=None)
    batch = store(database, [Try(0), running], state=BatchState.IN_PROGRESS).batch
    numbers = read_report(database, batch)
    assert numbers.span.ended_at > BEGAN + 3
    assert numbers.timeline is not None
    assert numbers.timeline.running[-1] == pytest.approx(1.0)
    assert numbers.status.ended_at is None


def test_levels_and_workers_add_up_their_own_attempts(database: Database) -> None:
    tries = [
        Try(0, prompt=100, completion=10, memory=2 << 30),
        Try(1, prompt=50, completion=5, memory=3 << 30, vram=1 << 20),
        Try(6, prompt=20, completion=2, level=1, worker="w2", memory=None),
    ]
    numbers = read_report(database, store(database, tries).batch)
    assert [(level.level, level.jobs, level.prompt_tokens, level.decode_s) for level in numbers.levels] == [
        (0, 2, 150, 4.0), (1, 1, 20, 2.0),
    ]  # fmt: skip
    first, second = numbers.workers
    assert (first.name, first.slots, first.succeeded, first.prompt_tokens) == ("w1", 2, 2, 150)
    assert (first.peak_memory_bytes, first.peak_vram_bytes) == (3 << 30, 1 << 20)
    assert first.seconds == pytest.approx(4.0)
    assert (second.name, second.peak_memory_bytes, second.peak_vram_bytes) == ("w2", 0, None)
    assert (numbers.peak_memory_bytes, numbers.peak_vram_bytes) == (3 << 30, 1 << 20)


def test_the_largest_documents_come_first_up_to_a_limit(database: Database) -> None:
    names = [f"документ {number}" for number in range(30)]
    tries = [Try(number, prompt=number + 1, document=number) for number in range(30)]
    numbers = read_report(database, store(database, [*tries, Try(99, prompt=50, document=3)], documents=names).batch)
    assert [document.name for document in numbers.documents[:3]] == ["документ 3", "документ 29", "документ 28"]
    largest = numbers.documents[0]
    assert (largest.jobs, largest.prompt_tokens, largest.completion_tokens) == (2, 54, 20)
    assert largest.seconds == pytest.approx(99)
    assert len(numbers.documents) == 20


def test_failures_are_counted_by_reason_with_the_jobs_that_failed_for_good(database: Database) -> None:
    tries = [
        failed(0, "engine_died", "signal 9"),
        failed(1, "engine_died", "signal 11"),
        failed(2, "prompt_too_long", "too long"),
        Try(3),
    ]
    numbers = read_report(database, store(database, tries, failed_documents=[("b.txt", "not text")]).batch)
    assert [(f.kind, f.attempts, f.jobs_given_up, f.example) for f in numbers.failed_attempts] == [
        ("engine_died", 2, 2, "signal 11"), ("prompt_too_long", 1, 1, "too long"),
    ]  # fmt: skip
    assert [(document.name, document.error) for document in numbers.failed_documents] == [("b.txt", "not text")]


def test_a_failure_followed_by_a_success_fails_no_job(database: Database) -> None:
    stored = store(database, [Try(5, epoch=2)])
    with database.write() as session:
        session.execute(insert(Attempt).values(
            job_id=stored.jobs[0], epoch=1, outcome=AttemptOutcome.FAILED, worker="w1", engine="simulated", model="m",
            started_at=BEGAN, finished_at=BEGAN + 1, error_kind="engine_failed", error="once",
        ))  # fmt: skip
    [found] = read_report(database, stored.batch).failed_attempts
    assert (found.kind, found.attempts, found.jobs_given_up) == ("engine_failed", 1, 0)


def test_the_slowest_jobs_come_first_up_to_a_limit(database: Database) -> None:
    tries = [Try(number, prefill=1.0, decode=float(number % 7), waited=None, level=number % 2) for number in range(30)]
    stored = store(database, tries)
    slowest = read_report(database, stored.batch).slowest
    assert [job.decode_s for job in slowest] == [6.0] * 4 + [5.0] * 4 + [4.0] * 4
    assert (slowest[0].job_id, slowest[0].position, slowest[0].level) == (stored.jobs[6], 6, 0)
    assert (slowest[0].document, slowest[0].waited_s, slowest[0].attempt) == ("a.txt", None, 1)


def test_usage_covers_the_batchs_workers_during_the_batch(database: Database) -> None:
    batch = store(database, [Try(5000, decode=59.0, worker="sampled")]).batch
    before, after = (4999.0, 9 << 30, 99.0, None), (5061.0, 9 << 30, 99.0, None)
    first, second = (5000.1, 1 << 30, 150.0, None), (5000.4, 3 << 30, 250.0, 7)
    add_samples(database, "sampled", [before, first, second, (5030.0, 2 << 30, 100.0, None), after])
    add_samples(database, "elsewhere", [(5010, 9 << 30, 99, None)])
    found = read_report(database, batch).usage
    assert [(round(s.at_s), s.samples, s.rss_bytes, s.vram_bytes, s.cpu_percent) for s in found] == [
        (0, 2, 3 << 30, 7, 200.0), (30, 1, 2 << 30, None, 100.0),
    ]  # fmt: skip


def test_a_batch_without_jobs_has_no_numbers(database: Database) -> None:
    numbers = read_report(database, store(database, [], documents=()).batch)
    assert (numbers.tokens, numbers.attempts_total, numbers.tokens_per_s, numbers.occupancy) == (0, 0, None, None)
    assert (numbers.timeline, numbers.durations, numbers.workers, numbers.peak_memory_bytes) == (None, {}, [], 0)


def test_an_unknown_batch_raises(sqlite: Database) -> None:
    with pytest.raises(NoSuchBatch):
        read_report(sqlite, "nowhere")
