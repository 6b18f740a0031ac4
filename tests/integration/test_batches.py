"""A batch on real services, from its documents to its summaries."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from docmill.storage.moves.workers import pause_worker
from docmill.storage.tables import Job
from tests.integration.conftest import SLOW, STEADY, Cluster, wait_until


def test_a_batch_completes_through_all_its_levels(either_cluster: Cluster) -> None:
    cluster = either_cluster
    cluster.start()
    documents = cluster.documents(4)
    batch_id = cluster.submit(documents)
    cluster.wait_for_end(batch_id)
    cluster.audit()
    reports = list(cluster.backend.reports.documents(batch_id))
    assert [report.source for report in reports] == documents
    assert all(report.summary and report.levels >= 2 for report in reports)
    assert cluster.count("attempts WHERE outcome <> 'succeeded'") == 0
    assert cluster.count("jobs WHERE epoch <> 1") == 0


def test_two_dispatchers_do_nothing_twice(cluster: Cluster) -> None:
    cluster.start()
    cluster.dispatcher()
    batch_id = cluster.submit(cluster.documents(8))
    cluster.wait_for_end(batch_id)
    cluster.audit()
    levels = cluster.rows(
        "SELECT document_id, level, count(DISTINCT position) AS positions, count(*) AS jobs FROM jobs GROUP BY 1, 2"
    )
    assert all(row.positions == row.jobs for row in levels)
    assert len({row.document_id for row in levels}) == 8


def test_cancel_ends_a_running_batch_and_frees_its_worker(cluster: Cluster) -> None:
    (worker,) = cluster.start(engine=SLOW)
    batch_id = cluster.submit(cluster.documents(4))
    cluster.wait_for_running(worker, 4)
    command = cluster.run("cancel", batch_id, "--json")
    assert command.wait() == 0
    assert json.loads(command.log.read_text())["cancelled_jobs"] > 0
    cluster.wait_for_end(batch_id, "cancelled")
    cluster.audit()
    assert cluster.count("attempts WHERE outcome = 'cancelled'") >= 4
    wait_until(lambda: cluster.count("workers WHERE running = 0") == 1, "the worker to drop what was cancelled")
    cluster.wait_for_end(cluster.submit(cluster.documents(1, words=20, start=10)))
    cluster.audit()


@pytest.mark.slow
def test_the_same_submit_after_kill_9_doubles_no_document(cluster: Cluster) -> None:
    documents = cluster.documents(100, words=20)
    command = cluster.run("submit", "--quiet", *documents)
    wait_until(lambda: cluster.count("documents") >= 5, "some documents to be stored")
    command.kill()
    stored = cluster.count("documents")
    assert stored < 100, "it was killed on its way"
    assert cluster.rows("SELECT state FROM batches")[0].state == "validating"
    command = cluster.run("submit", "--quiet", *documents)
    assert command.wait() == 0
    batch_id = command.log.read_text().split()[-1]
    (batch,) = cluster.rows("SELECT * FROM batches")
    assert (batch.id, batch.state, batch.documents_total) == (batch_id, "in_progress", 100)
    (names,) = cluster.rows("SELECT count(DISTINCT name) AS distinct_names, count(*) AS documents FROM documents")
    assert (names.distinct_names, names.documents) == (100, 100)
    cluster.dispatcher()
    cluster.worker({"decode_steps_per_s": 2_000}, slots=16)
    cluster.wait_for_end(batch_id)
    cluster.audit()


def test_a_poison_prompt_fails_alone(cluster: Cluster) -> None:
    cluster.environment["DOCMILL_WORKER__POISON_DEATHS"] = "2"
    batch_id = cluster.submit(cluster.documents(6, words=20))
    with cluster.backend.database.read() as session:
        poison, poison_ids = session.execute(sa.select(Job.id, Job.prompt_ids).order_by(Job.id).offset(2)).first() or ()
    cluster.start(engine={**STEADY, "die_on": list(poison_ids)})
    cluster.wait_for_end(batch_id)
    cluster.audit()
    assert [tuple(row) for row in cluster.rows("SELECT id, error_kind FROM jobs WHERE state = 'failed'")] == [
        (poison, "Poison")
    ]
    assert cluster.count("jobs WHERE state = 'succeeded' AND failures = 0") == 5, "no neighbour was charged"
    assert cluster.count("documents WHERE state = 'failed'") == 1
    assert cluster.count("results WHERE final") == 5


def test_ctrl_c_ends_a_dispatcher_in_order(cluster: Cluster) -> None:
    dispatcher = cluster.dispatcher()
    wait_until(lambda: "at work" in dispatcher.log.read_text(), "the dispatcher to be at work")
    dispatcher.signal(signal.SIGINT)
    assert dispatcher.wait() == 0
    assert "Traceback" not in dispatcher.log.read_text()


def test_a_paused_batch_stands_still_and_goes_on_when_it_is_resumed(either_cluster: Cluster) -> None:
    cluster = either_cluster
    (worker,) = cluster.start(engine={"decode_steps_per_s": 45.0})
    batch_id = cluster.submit(cluster.documents(4))
    cluster.wait_for_running(worker, 2)
    cluster.backend.batches.pause(batch_id)
    wait_until(lambda: cluster.running(worker) == 0, "what ran to be finished")
    done = cluster.count("jobs WHERE state = 'succeeded'")
    assert cluster.count("jobs WHERE state = 'queued'") > 0
    other = cluster.submit(cluster.documents(1, words=20, start=20))
    cluster.wait_for_end(other)
    assert cluster.count(f"jobs WHERE state = 'succeeded' AND batch_id = '{batch_id}'") == done
    assert cluster.run("resume", batch_id).wait() == 0
    cluster.wait_for_end(batch_id)
    cluster.audit()
    assert cluster.count("attempts WHERE outcome NOT IN ('succeeded', 'reused')") == 0


def test_a_paused_worker_finishes_what_it_holds_and_leaves_the_rest_to_others(cluster: Cluster) -> None:
    paused, other = cluster.start(workers=2)
    wait_until(lambda: cluster.count("workers") == 2, "both workers")
    (name,) = cluster.rows("SELECT name FROM workers WHERE name LIKE :n", n=f"%-{paused.pid}")[0]
    first = cluster.submit(cluster.documents(6))
    cluster.wait_for_running(paused, 2)
    pause_worker(cluster.backend.database, name)
    cluster.wait_for_end(first)
    wait_until(lambda: "is paused" in paused.log.read_text(), "the worker to say that it is paused")
    second = cluster.submit(cluster.documents(6, start=20))
    cluster.wait_for_end(second)
    here = f"attempts a JOIN jobs j ON j.id = a.job_id WHERE j.batch_id = '{second}' AND a.worker = '{name}'"
    assert cluster.count(here) == 0
    assert cluster.run("resume", "--worker", name).wait() == 0
    other.signal(signal.SIGTERM)
    assert other.wait() == 0
    cluster.wait_for_end(cluster.submit(cluster.documents(2, start=40)))
    cluster.audit()
    assert cluster.count("attempts WHERE outcome NOT IN ('succeeded', 'released')") == 0


def test_equal_documents_are_computed_once(either_cluster: Cluster) -> None:
    cluster = either_cluster
    cluster.extra["DOCMILL_WORKER__LEASE_S"] = "30"  # nobody waits for a worker that seems dead
    cluster.start(workers=2)
    original = cluster.documents(1)[0]
    copies = [f"{original}.{number}.txt" for number in range(5)]
    for copy in copies:
        shutil.copy(original, copy)
    wishes = {"prompt": "Say what is in this: {text}"}  # the documents' names are not in it
    first = cluster.submit([original, *copies], **wishes)
    cluster.wait_for_end(first)
    again = cluster.submit([original], priority=6, **wishes)
    cluster.wait_for_end(again)
    cluster.audit()
    computed = cluster.count("attempts WHERE outcome = 'succeeded'")
    assert computed == cluster.count("(SELECT DISTINCT level, prompt_ids FROM jobs) AS equal")
    assert computed == cluster.count("jobs") / 7, "of seven equal documents one was computed"
    fresh = cluster.submit([original], priority=7, reuse=False, **wishes)
    cluster.wait_for_end(fresh)
    assert cluster.count(f"batches WHERE id = '{fresh}' AND jobs_reused = 0") == 1


def test_a_submit_with_an_idempotency_key_is_one_batch_however_often_it_is_called(cluster: Cluster) -> None:
    documents = cluster.documents(2)
    calls = [cluster.run("submit", "--quiet", "--idempotency-key", "tonight", *documents) for _ in range(3)]
    assert [call.wait() for call in calls] == [0, 0, 0]
    assert len({call.log.read_text().strip().splitlines()[-1] for call in calls}) == 1
    assert cluster.count("batches") == 1
    other = cluster.run("submit", "--quiet", "--idempotency-key", "tonight", documents[0])
    assert other.wait() == 2
    assert "use another key" in other.log.read_text()


def test_a_worker_of_many_slots_holds_six_connections_to_postgres_at_most(
    make_cluster: Callable[..., Cluster], postgres_url: str
) -> None:
    cluster = make_cluster(postgres_url)
    cluster.submit(cluster.documents(150, words=20), merge="none")
    dispatcher = cluster.dispatcher()
    wait_until(lambda: cluster.count("jobs WHERE published_at IS NULL") == 0, "everything to be announced")
    dispatcher.kill()
    cluster.backend.database.close()  # the worker's are all there are
    cluster.worker({"decode_steps_per_s": 2_000.0}, slots=30)
    url = sa.make_url(postgres_url).set(drivername="postgresql+psycopg")
    watching = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    most = 0

    def is_done(connection: sa.Connection) -> bool:
        nonlocal most
        held = "datname = current_database() AND application_name = 'docmill'"
        now: int = connection.exec_driver_sql(f"SELECT count(*) FROM pg_stat_activity WHERE {held}").scalar_one()
        most = max(most, now)
        left: int = connection.exec_driver_sql("SELECT count(*) FROM jobs WHERE state <> 'succeeded'").scalar_one()
        return left == 0

    with watching.connect() as connection:
        wait_until(lambda: is_done(connection), "all jobs to be done")
    watching.dispose()
    assert 1 < most <= 6
    cluster.stop()
