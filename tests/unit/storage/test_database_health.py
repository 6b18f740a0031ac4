"""What the database's rows tell about the services, on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest

from docmill.settings.defaults import WORKER_SEEN_S
from docmill.storage.database import Database
from docmill.storage.errors import DatabaseUnavailable
from docmill.storage.moves.announce import Outbox
from docmill.storage.moves.attempts import ClaimedJob
from docmill.storage.reads.health import LATE_S, read_open_work, time_responses
from tests.unit.storage.conftest import Mill, generated


def test_the_time_it_answers_in_and_its_clock_are_measured(database: Database) -> None:
    answer = time_responses(database)
    assert 0 < answer.ping_s < 5
    assert abs(answer.clock_offset_s) < 5  # its host is this one


def test_an_unreachable_database_says_so(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/d.db")
    (tmp_path / "d.db").write_bytes(b"no database" * 1000)
    with pytest.raises(DatabaseUnavailable, match="sqlite"):
        time_responses(database)


def test_open_jobs_are_counted_by_model_without_those_of_paused_and_ended_batches(mill: Mill) -> None:
    first = mill.submit(3, 2, model="a")
    worker = mill.worker(model="a")
    job = worker.claim(mill.job_ids(first)[0])
    assert isinstance(job, ClaimedJob)
    assert worker.complete(job, generated())
    mill.submit(4, model="b")
    paused = mill.submit(5, model="c")
    mill.change("UPDATE batches SET paused_at = 1 WHERE id = :b", b=paused)
    mill.batches.cancel(mill.submit(6, model="d"))
    assert read_open_work(mill.database).jobs == {"a": 4, "b": 4}


def test_a_worker_is_alive_while_its_heartbeat_is_young_and_gone_from_the_list_once_it_ended(mill: Mill) -> None:
    mill.register("old", slots=4, model="a")
    mill.let_pass(WORKER_SEEN_S + 5)
    mill.register("young", slots=8, model="b").seen(running=3)
    mill.register("ended", slots=8).stopped()
    workers = {worker.name: worker for worker in read_open_work(mill.database).workers}
    assert set(workers) == {"old", "young"}
    assert (workers["old"].is_alive, workers["young"].is_alive) == (False, True)
    assert (workers["young"].model, workers["young"].slots, workers["young"].running) == ("b", 8, 3)


def test_a_lease_that_ran_out_is_late_only_after_a_dispatcher_should_have_seen_it(mill: Mill) -> None:
    batch = mill.submit(2)
    mill.worker(lease_s=10).claim(mill.job_ids(batch)[0])
    mill.let_pass(15)
    assert read_open_work(mill.database).late_leases == 0
    mill.let_pass(LATE_S)
    assert read_open_work(mill.database).late_leases == 1
    mill.rescue(max_losses=3)
    assert read_open_work(mill.database).late_leases == 0


def test_a_model_starves_when_its_jobs_wait_and_none_is_announced(mill: Mill) -> None:
    mill.submit(2, model="m")
    assert read_open_work(mill.database).starved == ()
    mill.let_pass(LATE_S + 5)
    assert read_open_work(mill.database).starved == ("m",)
    outbox = Outbox(mill.database)
    outbox.mark_published(outbox.unpublished("m", 1))
    assert read_open_work(mill.database).starved == ()
