from __future__ import annotations

import multiprocessing
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from docmill.storage.database import Database
from docmill.storage.moves.attempts import ClaimedJob, Failure, WorkerIdentity
from docmill.storage.moves.batches import Batches
from docmill.storage.moves.documents import Documents, EndedLevel
from docmill.storage.moves.finish_batches import finish_batches
from docmill.storage.moves.jobs import Jobs
from docmill.storage.moves.rescue import rescue_lost_jobs
from tests.unit.storage.conftest import Mill, generated, new_jobs

THREADS = 4


def work_through(url: str, name: str, job_ids: list[int], threads: int = THREADS) -> None:
    """A worker process: every thread tries every job, each in a different order."""
    database = Database(url, pool_size=threads)
    jobs = Jobs(database, WorkerIdentity(name, "simulated", "m"), lease_s=30.0)

    def run(seed: int) -> None:
        for job_id in random.Random(seed).sample(job_ids, len(job_ids)):
            job = jobs.claim(job_id)
            if job is not None:
                assert jobs.complete(job, generated())

    in_threads([partial(run, seed) for seed in range(threads)])
    database.close()


def in_threads(acts: list[Callable[[], None]]) -> None:
    """Start all at the same time; raise the first exception of any of them."""
    together = threading.Barrier(len(acts))

    def begin(act: Callable[[], None]) -> None:
        together.wait()
        act()

    with ThreadPoolExecutor(len(acts)) as pool:
        for future in [pool.submit(begin, act) for act in acts]:
            future.result()


def test_fan_in_is_exact_when_processes_and_threads_finish_together(mill: Mill) -> None:
    batch_id = mill.submit(*[4] * 12)
    job_ids = mill.job_ids(batch_id)
    url = mill.database.url.render_as_string(hide_password=False)
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=work_through, args=(url, f"p{number}", job_ids)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    batch = mill.of_batch(batch_id)
    assert (batch.jobs_succeeded, batch.completion_tokens) == (48, 48 * 7)
    assert {row.open_jobs for row in mill.rows("SELECT open_jobs FROM documents")} == {0}
    assert {row.epoch for row in mill.rows("SELECT epoch FROM jobs")} == {1}, "no job ran twice"
    assert len(mill.documents.with_ended_level()) == 12


def test_of_many_dispatchers_one_takes_each_document_on(mill: Mill) -> None:
    batch_id = mill.submit(*[1] * 6)
    for job_id in mill.job_ids(batch_id):
        mill.run(job_id)
    ended = mill.documents.with_ended_level()
    url = mill.database.url
    begun: list[tuple[int, str]] = []

    def take_on(number: int) -> None:
        database = Database(url.render_as_string(hide_password=False))
        levels = Documents(database)
        moves: list[tuple[str, Callable[[EndedLevel], bool]]] = [
            ("level", lambda document: levels.begin_level(document, new_jobs(2, level=1))),
            ("finish", lambda document: levels.finish(document, text="joined", has_one_result=True)),
            ("fail", lambda document: levels.fail(document, "no")),
            ("level", lambda document: levels.begin_level(document, new_jobs(2, level=1))),
        ]
        name, move = moves[number]
        begun.extend((document.document_id, name) for document in ended if move(document))
        finish_batches(database)
        database.close()

    in_threads([partial(take_on, number) for number in range(4)])
    assert sorted(document for document, _ in begun) == sorted(document.document_id for document in ended)
    levels = sum(name == "level" for _, name in begun)
    assert mill.of_batch(batch_id).jobs_total == 6 + 2 * levels


def test_many_rescuers_take_each_lost_job_back_once(mill: Mill) -> None:
    batch_id = mill.submit(5, 5, 5)
    for job_id in mill.job_ids(batch_id):
        mill.claim(job_id)
    mill.let_pass(31)
    url = mill.database.url.render_as_string(hide_password=False)
    taken: list[int] = []

    def rescue() -> None:
        database = Database(url)
        taken.append(rescue_lost_jobs(database, max_losses=1))
        database.close()

    in_threads([rescue] * 3)
    while more := mill.rescue(max_losses=1):  # rows that another's lock hid
        taken.append(more)
    assert sum(taken) == 15
    assert mill.of_batch(batch_id).jobs_failed == 15


def work_badly(url: str, seed: int, job_ids: list[int], progress: threading.Semaphore) -> None:
    """A worker whose leases are far too short and whose jobs end in every possible way."""
    database = Database(url)
    jobs = Jobs(database, WorkerIdentity(f"w{seed}", "simulated", "m"), lease_s=0.05)
    chance = random.Random(seed)
    held: list[ClaimedJob] = []
    for job_id in chance.sample(job_ids, len(job_ids)):
        if job := jobs.claim(job_id):
            held.append(job)
        jobs.heartbeat(held)
        if len(held) > 3:
            job = held.pop(chance.randrange(len(held)))
            match chance.choice(["complete", "fail", "retry", "release"]):
                case "complete":
                    jobs.complete(job, generated())
                case "fail":
                    jobs.fail(job, Failure("a", "b"))
                case "retry":
                    jobs.retry(job, Failure("a", "b"), delay_s=0)
                case "release":
                    jobs.release(job)
        progress.release()
    database.close()


def dispatch(url: str, ended: threading.Event) -> None:
    """Everything that a dispatcher does to the database, without pauses."""
    mill = Mill(Database(url))
    while not ended.is_set():
        mill.rescue(max_losses=3)
        mill.outbox.mark_published(mill.outbox.unpublished("m", 20))
        mill.end_documents()
        mill.finish_batches()
    mill.database.close()


def test_cancel_rescue_and_heartbeats_among_running_workers_end_in_one_state_each(mill: Mill) -> None:
    batch_id, other = mill.submit(*[5] * 12), mill.submit(*[3] * 4)
    all_jobs = [*mill.job_ids(batch_id), *mill.job_ids(other)]
    url = mill.database.url.render_as_string(hide_password=False)
    progress, ended = threading.Semaphore(0), threading.Event()

    def cancel_and_retry() -> None:
        for _ in range(30):
            progress.acquire()
        database = Database(url)
        Batches(database).cancel(batch_id)
        Batches(database).retry_failed(other)
        database.close()

    with ThreadPoolExecutor(2) as pool:
        dispatchers = [pool.submit(dispatch, url, ended) for _ in range(2)]
        try:
            in_threads([*[partial(work_badly, url, seed, all_jobs, progress) for seed in range(3)], cancel_and_retry])
        finally:
            ended.set()
    for dispatcher in dispatchers:
        dispatcher.result()
    mill.check()
    for _ in range(2):
        mill.finish_batches()
    assert mill.of_batch(batch_id).state == "cancelled"
    assert set(mill.states(batch_id)) <= {"succeeded", "failed", "cancelled"}
