from __future__ import annotations

import queue
import threading

import pytest

from docmill.storage.moves.attempts import ClaimedJob
from docmill.worker.heartbeat import Heartbeat, request_id_of
from tests.unit.worker.conftest import LEASE_S, Stored


def heartbeat_of(stored: Stored, lost: list[str]) -> Heartbeat:
    return Heartbeat(stored.jobs(), stored.workers(), lost.append, lease_s=LEASE_S)


def claim(stored: Stored, index: int) -> ClaimedJob:
    job = stored.jobs().claim(stored.job_ids[index])
    assert job is not None
    return job


def test_a_beat_renews_the_leases_of_held_jobs_only(stored: Stored) -> None:
    lost: list[str] = []
    heartbeat = heartbeat_of(stored, lost)
    held, left = claim(stored, 0), claim(stored, 1)
    for job in (held, left):
        stored.set_job(job.id, "lease_until = 5")
    with heartbeat.holding(left):
        pass
    with heartbeat.holding(held):
        heartbeat.beat()
    assert stored.job(held.id)["lease_until"] > LEASE_S
    assert stored.job(left.id)["lease_until"] == 5
    assert lost == []


def test_a_beat_notes_that_the_worker_was_seen_and_how_much_it_runs(stored: Stored) -> None:
    stored.workers().register(slots=4)
    heartbeat = heartbeat_of(stored, [])
    with heartbeat.holding(claim(stored, 0)), heartbeat.holding(claim(stored, 1)):
        heartbeat.beat()
    assert stored.rows("SELECT running FROM workers") == [{"running": 2}]
    heartbeat.beat()
    assert stored.rows("SELECT running FROM workers") == [{"running": 0}]


def test_a_beat_stops_what_was_taken_over_and_nothing_else(stored: Stored) -> None:
    lost: list[str] = []
    heartbeat = heartbeat_of(stored, lost)
    ours, theirs = claim(stored, 0), claim(stored, 1)
    stored.set_job(theirs.id, "lease_until = 1")
    assert stored.jobs("other/cpu-1").claim(theirs.id) is not None
    with heartbeat.holding(ours), heartbeat.holding(theirs):
        heartbeat.beat()
    assert lost == [request_id_of(theirs)]


def test_a_beat_stops_what_was_cancelled(stored: Stored) -> None:
    lost: list[str] = []
    heartbeat = heartbeat_of(stored, lost)
    first, second = claim(stored, 0), claim(stored, 1)
    stored.cancel()
    with heartbeat.holding(first), heartbeat.holding(second):
        heartbeat.beat()
    assert sorted(lost) == sorted(map(request_id_of, (first, second)))


def test_all_jobs_are_cancelled_when_the_database_is_away_longer_than_a_lease(stored: Stored) -> None:
    lost: queue.SimpleQueue[str] = queue.SimpleQueue()
    heartbeat = Heartbeat(stored.jobs(lease_s=0.5), stored.workers(), lost.put, lease_s=0.5)
    jobs = [claim(stored, index) for index in range(3)]
    give_back = stored.lock()
    with heartbeat.holding(jobs[0]), heartbeat.holding(jobs[1]), heartbeat.holding(jobs[2]):
        heartbeat.start()
        given_up = {lost.get(timeout=30) for _ in jobs}
        heartbeat.stop()
    give_back()
    assert given_up == set(map(request_id_of, jobs))


def test_the_heartbeat_continues_after_a_beat_that_failed(stored: Stored) -> None:
    tried = threading.Semaphore(0)

    def lost(_: str) -> None:
        tried.release()
        raise RuntimeError("something unexpected")

    heartbeat = Heartbeat(stored.jobs(lease_s=0.1), stored.workers(), lost, lease_s=0.1)
    job = claim(stored, 0)
    stored.cancel()
    with heartbeat.holding(job):
        heartbeat.start()
        assert tried.acquire(timeout=30)
        assert tried.acquire(timeout=30)
    heartbeat.stop()


def test_a_lease_is_held_no_longer_when_the_job_ends_with_an_error(stored: Stored) -> None:
    lost: list[str] = []
    heartbeat, job = heartbeat_of(stored, lost), claim(stored, 0)
    with pytest.raises(ValueError, match="x"), heartbeat.holding(job):
        raise ValueError("x")
    stored.cancel()
    heartbeat.beat()
    assert lost == []
