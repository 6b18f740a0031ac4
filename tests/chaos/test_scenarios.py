"""Thirteen ways in which job queues have lost or doubled work, each played out: green says fixed, red says broken.

Races are made, not waited for: one transaction stops right before its commit while its rival runs into it, and
processes are killed at a chosen commit. Each holds on SQLite and on Postgres.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psutil
import pytest

from docmill.broker.celery_app import make_app
from docmill.broker.publish import publish
from docmill.storage.errors import WrongState
from docmill.storage.moves.announce import Outbox
from docmill.storage.moves.attempts import ClaimedJob, Failure
from docmill.storage.moves.finish_batches import end_unfinished_work
from docmill.storage.moves.rescue import rescue_lost_jobs
from docmill.storage.states import JobState
from tests.chaos import dying
from tests.chaos.stage import ByHand, another_hand, race, text_of
from tests.integration.audit import contradictions
from tests.integration.conftest import Cluster, wait_until
from tests.unit.storage.conftest import Mill, generated

FAILURE = Failure("EngineFailed", "it raised")
ENDLESS = {"max_tokens": 6000, "summary_tokens": 6000}  # minutes at the rate of CRAWL
SHORT = {"max_tokens": 8, "summary_tokens": 8}
CRAWL = {"decode_steps_per_s": 10.0}

Moves = dict[str, Callable[[Mill, ClaimedJob], Any]]
LATE: Moves = {
    "complete": lambda mill, job: mill.worker().complete(job, generated("too late")),
    "fail": lambda mill, job: mill.worker().fail(job, FAILURE),
    "retry": lambda mill, job: mill.worker().retry(job, FAILURE, delay_s=0),
    "release": lambda mill, job: mill.worker().release(job),
}
ENDS: Moves = {
    "succeeded": lambda mill, job: mill.worker().complete(job, generated("the text")),
    "failed": lambda mill, job: mill.worker().fail(job, FAILURE),
    "cancelled": lambda mill, job: end_unfinished_work(mill.database, job.batch_id, JobState.CANCELLED),
    "expired": lambda mill, job: end_unfinished_work(mill.database, job.batch_id, JobState.EXPIRED),
}


def settle(mill: Mill) -> None:
    """What a dispatcher does to batches, until nothing is left to do."""
    for _ in range(3):
        mill.finish_batches()


# 1


@pytest.mark.parametrize("end", ENDS)
def test_terminal_overwrite_no_late_move_changes_a_job_that_has_ended(mill: Mill, end: str) -> None:
    batch_id = mill.submit(1)
    (job_id,) = mill.job_ids(batch_id)
    stale = mill.claim(job_id, "frozen")
    mill.let_pass(31)
    held = mill.claim(job_id, "next")
    assert ENDS[end](mill, held)

    def everything() -> list[Any]:
        return [mill.rows(f"SELECT * FROM {table}") for table in ("jobs", "results", "documents", "batches")]

    before = everything()
    assert mill.job(job_id).state == end
    for job in (stale, held):
        for name, move in LATE.items():
            assert not move(mill, job), name
        assert mill.worker().heartbeat([job]) == set()
    assert mill.worker().claim(job_id) is None
    assert mill.rescue(max_losses=9) == 0
    assert mill.outbox.unpublished("m", 9) == []
    assert everything() == before
    with another_hand(mill) as user:
        user.batches.cancel(batch_id)
    assert (mill.job(job_id).state, mill.job(job_id).finished_at) == (end, before[0][0].finished_at)
    assert mill.rows("SELECT text FROM results") == ([("the text",)] if end == "succeeded" else [])


# 2


def test_worker_crash_strands_a_job_the_next_worker_runs_what_the_dead_one_held(either_cluster: Cluster) -> None:
    cluster = either_cluster
    (doomed,) = cluster.start(engine=CRAWL)
    batch_id = cluster.submit(cluster.documents(7, words=20))
    cluster.wait_for_running(doomed, 7)
    held = {row.id for row in cluster.rows("SELECT id FROM jobs WHERE state = 'running'")}
    cluster.freeze(doomed)
    doomed.kill()
    wait_until(lambda: cluster.count("jobs WHERE state = 'running'") == 0, "the dispatcher to take back what it held")
    cluster.worker()
    cluster.wait_for_end(batch_id)
    cluster.audit()
    for job_id in held:
        outcomes = [row[0] for row in cluster.rows(f"SELECT outcome FROM attempts WHERE job_id = {job_id}")]
        assert sorted(outcomes) == ["lost", "succeeded"]
    assert cluster.count("jobs WHERE failures > 0") == 0, "a lost worker is no fault of the job"


# 3


@pytest.mark.parametrize("move", LATE)
def test_cancel_reverted_no_move_of_its_worker_brings_a_cancelled_job_back(mill: Mill, move: str) -> None:
    batch_id = mill.submit(1, 1)
    job_id, other = mill.job_ids(batch_id)
    job = mill.claim(job_id)
    mill.outbox.mark_published(mill.outbox.unpublished("m", 9))
    mill.batches.cancel(batch_id)
    assert not LATE[move](mill, job)
    settle(mill)
    assert not LATE[move](mill, job)
    mill.let_pass(31)
    assert mill.rescue(max_losses=9) == 0
    assert mill.outbox.models_at_work() == []
    assert [mill.worker().claim(job_id), mill.worker().claim(other)] == [None, None], "messages of it still lie there"
    with pytest.raises(WrongState):
        mill.batches.retry_failed(batch_id)
    settle(mill)
    assert (mill.of_batch(batch_id).state, mill.states(batch_id)) == ("cancelled", ["cancelled"] * 2)
    assert mill.rows("SELECT * FROM results") == []


@pytest.mark.parametrize("began", ["queued", "running"])
def test_cancel_reverted_a_job_that_is_claimed_or_put_back_meanwhile_is_cancelled_too(mill: Mill, began: str) -> None:
    at, begun = 0, 1
    while at < begun:  # right before each transaction of the dispatcher's, in turn
        batch_id = mill.submit(1, key=f"k{at}")
        (job_id,) = mill.job_ids(batch_id)
        job = mill.claim(job_id) if began == "running" else None
        mill.change("UPDATE batches SET state = 'cancelling' WHERE id = :b", b=batch_id)  # its client died here
        begun = 0

        def change(at: int = at, job_id: int = job_id, job: ClaimedJob | None = job) -> None:
            nonlocal begun
            if begun == at:
                mill.worker().release(job) if job else mill.worker().claim(job_id)
            begun += 1

        with another_hand(mill, change) as dispatcher:
            settle(dispatcher)
        assert (mill.of_batch(batch_id).state, mill.states(batch_id)) == ("cancelled", ["cancelled"]), at
        at += 1
    assert at > 8


# 4


def test_duplicate_execution_of_two_claims_at_once_one_gets_the_job(mill: Mill) -> None:
    (job_id,) = mill.job_ids(mill.submit(1))
    for epoch in (1, 2):  # a queued job, and one whose worker is lost
        first, second = race(
            mill, lambda hand: hand.worker("first").claim(job_id), lambda hand: hand.worker("second").claim(job_id)
        )
        assert first is not None
        assert second is None
        assert (mill.job(job_id).owner, mill.job(job_id).epoch, len(mill.attempts(job_id))) == ("first", epoch, epoch)
        mill.let_pass(31)


# 5


@pytest.mark.parametrize("first", ["completion", "cancel"])
def test_cancel_racing_completion_whoever_commits_first_decides_alone(mill: Mill, first: str) -> None:
    batch_id = mill.submit(2)
    running, _ = mill.job_ids(batch_id)
    job = mill.claim(running)

    def complete(hand: Mill) -> bool:
        return hand.worker().complete(job, generated())

    def cancel(hand: Mill) -> int:
        return hand.batches.cancel(batch_id)

    if first == "completion":
        stored, cancelled = race(mill, complete, cancel)
        assert (stored, cancelled) == (True, 1)
    else:
        cancelled, stored = race(mill, cancel, complete)
        assert (stored, cancelled) == (False, 2)
    assert mill.job(running).state == ("succeeded" if stored else "cancelled")
    assert len(mill.rows("SELECT * FROM results")) == stored
    settle(mill)
    batch = mill.of_batch(batch_id)
    assert (batch.state, batch.jobs_succeeded, batch.jobs_cancelled) == ("cancelled", int(stored), 2 - stored)


# 6


@pytest.mark.parametrize("found_by", ["the dispatcher", "another worker"])
def test_recovery_crash_loop_a_job_that_kills_every_worker_is_given_up_alone(mill: Mill, found_by: str) -> None:
    batch_id = mill.submit(1, 1)
    deadly, harmless = mill.job_ids(batch_id)
    for death in range(1, 4):
        mill.claim(deadly, f"worker {death}")
        mill.let_pass(31)
        if found_by == "the dispatcher" or death == 3:
            assert mill.rescue(max_losses=3) == 1
    mill.run(harmless)
    job = mill.job(deadly)
    assert (job.state, job.error_kind, job.error) == (
        "failed",
        "WorkerLost",
        "its worker was lost 3 times while it ran",
    )
    assert mill.outcomes(deadly) == ["lost"] * 3
    assert mill.states(batch_id) == ["failed", "succeeded"]
    assert mill.worker().claim(deadly) is None


def test_recovery_crash_loop_a_dispatcher_that_dies_while_it_rescues_harms_no_job(either_cluster: Cluster) -> None:
    cluster = either_cluster
    cluster.submit(cluster.documents(3, words=20))
    lost = ByHand(cluster, lease_s=-1.0).take()
    for _ in range(5):
        assert dying.dies_in(dying.dispatch, cluster.environment, 1, dies_before_commit=1)
        assert cluster.count("jobs WHERE state = 'running' AND losses = 0") == len(lost) == 3
    released = wait_until(
        lambda: rescue_lost_jobs(cluster.backend.database, max_losses=9), "the dead dispatcher's locks to be gone"
    )
    assert released == 3
    assert cluster.count("jobs WHERE state = 'queued' AND losses = 1") == 3


def test_recovery_crash_loop_a_dispatcher_that_never_lives_for_two_commits_ends_the_batch(
    either_cluster: Cluster,
) -> None:
    cluster = either_cluster
    batch_id = cluster.submit(cluster.documents(2))
    worker = ByHand(cluster)
    deaths = 0
    while cluster.state(batch_id) != "completed":
        worker.work_off()
        deaths += dying.dies_in(dying.dispatch, cluster.environment, 1, dies_before_commit=2)
        with cluster.backend.database.engine.connect() as connection:
            assert contradictions(connection) == []
        assert deaths < 60, "it makes no progress"
    assert deaths >= 6
    cluster.audit()
    assert cluster.count("jobs WHERE epoch <> 1") == 0


# 7


def test_replicas_execute_once_two_of_each_and_every_message_three_times(make_cluster: Callable[..., Cluster],
                                                                         request: pytest.FixtureRequest,
                                                                         kind: str) -> None:  # fmt: skip
    url = request.getfixturevalue("postgres_url") if kind == "postgres" else None
    cluster = make_cluster(url, WORKER__LEASE_S="30")  # nobody is slow enough to lose a job
    batch_id = cluster.submit(cluster.documents(8))
    database = cluster.backend.database
    announced = Outbox(database).overdue("simulated", age_s=-60.0, limit=1000)
    assert len(announced) == cluster.count("jobs") > 8
    for _ in range(2):
        publish(make_app(cluster.broker.url), announced)
    cluster.start(workers=2)
    cluster.dispatcher()
    cluster.wait_for_end(batch_id)
    cluster.audit()
    assert cluster.count("jobs WHERE epoch <> 1") == 0
    assert cluster.count("attempts WHERE outcome <> 'succeeded'") == 0
    levels = cluster.rows("SELECT max(position) + 1 AS width, count(*) AS jobs FROM jobs GROUP BY document_id, level")
    assert all(level.width == level.jobs for level in levels), "each level was planned once"
    assert cluster.count("results WHERE final") == 8
    cluster.stop()


@pytest.fixture(params=["sqlite", "postgres"])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


# 8


def test_create_crashes_after_store_the_batch_runs_though_nobody_announced_it(either_cluster: Cluster) -> None:
    cluster = either_cluster
    documents = cluster.documents(2)
    options = {"chunk_tokens": 128, "summary_tokens": 60, "max_tokens": 60, "idempotency_key": "nightly"}
    assert dying.dies_in(dying.submit_and_die_before_publishing, cluster.environment, documents, options)
    (batch,) = cluster.rows("SELECT id, state FROM batches")
    assert batch.state == "in_progress"
    assert cluster.count("jobs WHERE published_at IS NULL") == cluster.count("jobs") > 2
    assert cluster.submit(documents, idempotency_key="nightly") == batch.id, "the client tries again"
    worker = ByHand(cluster)
    dispatcher = cluster.backend.dispatcher(make_app(cluster.broker.url))
    while cluster.state(batch.id) != "completed":
        dispatcher.tick()
        assert cluster.count("jobs WHERE state = 'queued' AND published_at IS NULL") == 0
        worker.work_off()
    cluster.audit()
    assert cluster.count("documents") == 2


def test_create_crashes_after_store_a_submit_killed_at_each_of_its_commits_is_taken_up(either_cluster: Cluster) -> None:
    cluster = either_cluster
    documents, options = cluster.documents(2), {"chunk_tokens": 128}
    deaths = 0
    while dying.dies_in(dying.submit, cluster.environment, documents, options, dies_before_commit=deaths + 2):
        deaths += 1
        assert cluster.count("batches") <= 1
        if cluster.count("batches WHERE state = 'in_progress'"):
            break  # all is stored; the same command once more would be another batch
    assert deaths >= 4
    (batch,) = cluster.rows("SELECT * FROM batches")
    assert (batch.state, batch.documents_total) == ("in_progress", 2)
    names = cluster.rows("SELECT name FROM documents ORDER BY position")
    assert [row.name for row in names] == ["0000.txt", "0001.txt"]
    with cluster.backend.database.engine.connect() as connection:
        assert contradictions(connection) == []


# 9


def test_cancel_event_lost_running_jobs_are_stopped_though_the_broker_is_away(cluster: Cluster) -> None:
    (worker,) = cluster.start(engine=CRAWL)
    batch_id = cluster.submit(cluster.documents(7, words=20), **ENDLESS)
    cluster.wait_for_running(worker, 7)
    cluster.broker.stop()
    assert cluster.run("cancel", batch_id).wait() == 0
    cluster.wait_for_end(batch_id, "cancelled")
    wait_until(lambda: cluster.count("workers WHERE running = 0") == 1, "the worker to drop what was cancelled")
    cluster.broker.start()
    cluster.wait_for_end(cluster.submit(cluster.documents(4, words=20, start=10), **SHORT))  # its slots are free
    cluster.audit()
    assert cluster.count("attempts WHERE outcome = 'cancelled'") == 7
    assert worker.process.poll() is None


# 10


def test_orphaned_result_a_crash_before_the_commit_leaves_neither_text_nor_outcome(either_cluster: Cluster) -> None:
    cluster = either_cluster
    cluster.submit(cluster.documents(1, words=20))
    (job,) = cluster.rows("SELECT id FROM jobs")
    assert dying.dies_in(dying.work, cluster.database_url, job.id, "of the dead", dies_before_commit=2)
    assert [tuple(row) for row in cluster.rows("SELECT state, owner, epoch FROM jobs")] == [("running", "doomed", 1)]
    assert cluster.count("results") == 0
    with cluster.backend.database.write() as session:
        session.connection().exec_driver_sql("UPDATE jobs SET lease_until = 1")
    wait_until(lambda: rescue_lost_jobs(cluster.backend.database, max_losses=9), "the dead worker's locks to be gone")
    assert ByHand(cluster).work_off() == 1
    assert [tuple(row) for row in cluster.rows("SELECT job_id, text FROM results")] == [(job.id, text_of(job.id))]
    assert [row[0] for row in cluster.rows("SELECT outcome FROM attempts ORDER BY epoch")] == ["lost", "succeeded"]


# 11


@pytest.mark.parametrize("at", ["between levels", "the last job"])
def test_finalization_strands_another_dispatcher_goes_on_from_wherever_one_died(
    either_cluster: Cluster, at: str
) -> None:
    cluster = either_cluster
    batch_id = cluster.submit(cluster.documents(1, words=20 if at == "the last job" else 150))
    worker = ByHand(cluster)
    worker.work_off()
    seen = []
    while dying.dies_in(dying.dispatch, cluster.environment, 1, dies_before_commit=2 if seen else 1):
        with cluster.backend.database.engine.connect() as connection:
            assert contradictions(connection) == []
        seen.append((cluster.count("documents WHERE state = 'done'"), cluster.state(batch_id)))
    if at == "the last job":
        assert seen == [(0, "in_progress"), (1, "in_progress"), (1, "finalizing")]
    else:
        assert len(seen) == 2
        assert cluster.count("jobs WHERE level = 1 AND published_at IS NOT NULL") > 0
    dispatcher = cluster.backend.dispatcher(make_app(cluster.broker.url))
    while cluster.state(batch_id) != "completed":
        dispatcher.tick()
        worker.work_off()
    cluster.audit()
    assert cluster.count("jobs WHERE epoch <> 1") == 0


# 12


def test_zombie_owner_burns_inference_it_stops_its_engine_when_it_wakes(either_cluster: Cluster) -> None:
    cluster = either_cluster
    (zombie,) = cluster.start(engine=CRAWL)
    endless = cluster.submit(cluster.documents(7, words=20), **ENDLESS)
    cluster.wait_for_running(zombie, 7)
    name = cluster.rows("SELECT owner FROM jobs LIMIT 1")[0].owner
    engine = zombie.engine
    assert engine is not None
    cluster.freeze(zombie)
    engine.suspend()
    heir = cluster.worker(CRAWL)
    cluster.wait_for_running(heir, 7)  # all it can hold
    engine.resume()
    psutil.Process(zombie.pid).resume()
    short = cluster.submit(cluster.documents(4, words=20, start=10), **SHORT)  # only the zombie has room for these
    cluster.wait_for_end(short)
    done = cluster.rows(
        "SELECT a.worker, a.outcome FROM attempts a JOIN jobs j ON j.id = a.job_id WHERE j.batch_id = :b", b=short
    )
    assert {tuple(row) for row in done} == {(name, "succeeded")}
    assert cluster.count("attempts WHERE outcome = 'fenced'") == 7
    assert cluster.count("results") == 4, "it wrote nothing of what it had lost"
    assert zombie.engine == engine
    cluster.backend.batches.cancel(endless)
    cluster.wait_for_end(endless, "cancelled")
    cluster.audit()


# 13


def test_result_destroyed_by_a_late_writer_the_stored_text_stays(mill: Mill) -> None:
    (job_id,) = mill.job_ids(mill.submit(1))
    stale = mill.claim(job_id, "frozen")
    mill.let_pass(31)

    def complete_late(hand: Mill) -> bool:
        return hand.worker("frozen").complete(stale, generated("too late"))

    current, stored = race(mill, lambda hand: hand.worker("next").claim(job_id), complete_late)
    assert isinstance(current, ClaimedJob)
    assert not stored
    assert mill.worker("next").complete(current, generated("in time"))
    assert not complete_late(mill)
    assert mill.rows("SELECT text, final FROM results") == [("in time", False)]
    assert mill.outcomes(job_id) == ["fenced", "succeeded"]


@pytest.mark.parametrize("rival", ["a claim", "a rescue"])
def test_result_destroyed_by_a_late_writer_who_is_late_but_first_has_written(mill: Mill, rival: str) -> None:
    (job_id,) = mill.job_ids(mill.submit(1))
    late = mill.claim(job_id, "slow")
    mill.let_pass(31)
    stored, taken = race(
        mill,
        lambda hand: hand.worker("slow").complete(late, generated("late, and first")),
        lambda hand: hand.worker("next").claim(job_id) if rival == "a claim" else hand.rescue(max_losses=9),
    )
    assert stored
    assert not taken
    assert mill.rows("SELECT text FROM results") == [("late, and first",)]
    assert mill.outcomes(job_id) == ["succeeded"]
