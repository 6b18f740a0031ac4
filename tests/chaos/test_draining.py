"""How a worker ends, and how a batch does before its time: whatever runs then is finished, put back or stopped."""

from __future__ import annotations

import signal

from tests.integration.conftest import STEADY, Cluster, Service, wait_until

ENDLESS = {"max_tokens": 6000, "summary_tokens": 6000}
CRAWL = {"decode_steps_per_s": 10.0}


def draining_worker(cluster: Cluster) -> Service:
    """A worker that has been asked to end, may take an hour, and has begun to drain with seven jobs in it."""
    options = [f"--engine-option={name}={value}" for name, value in CRAWL.items()]
    worker = cluster.run("worker", "--engine", "simulated", "--slots", "4", "--drain-timeout", "3600", *options)
    cluster.dispatcher()
    cluster.submit(cluster.documents(9, words=20), **ENDLESS)
    cluster.wait_for_running(worker, 7)
    worker.signal(signal.SIGTERM)
    wait_until(lambda: "Warm shutdown" in worker.log.read_text(), "the worker to begin to end")
    return worker


def test_drain_finishes_what_runs_and_takes_nothing_more(cluster: Cluster) -> None:
    worker = cluster.run(
        "worker", "--engine", "simulated", "--slots", "4", "--drain-timeout", "3600",
        "--engine-option=decode_steps_per_s=30",
    )  # fmt: skip
    cluster.dispatcher()
    batch_id = cluster.submit(cluster.documents(12, words=20))
    cluster.wait_for_running(worker, 7)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert cluster.count("attempts WHERE outcome <> 'succeeded'") == 0, "nothing was put back"
    assert 7 <= cluster.count("jobs WHERE state = 'succeeded'") < 12
    assert cluster.count("jobs WHERE state = 'running'") == 0
    cluster.worker()
    cluster.wait_for_end(batch_id)
    cluster.audit()


def test_a_second_sigterm_ends_the_drain_at_once_and_puts_everything_back(cluster: Cluster) -> None:
    worker = draining_worker(cluster)
    assert cluster.running(worker) == 7
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert cluster.count("attempts WHERE outcome = 'released'") == 7
    assert cluster.count("jobs WHERE state = 'queued' AND failures = 0 AND losses = 0") == 9


def test_sigkill_during_a_drain_is_survived_as_any_crash(cluster: Cluster) -> None:
    worker = draining_worker(cluster)
    cluster.freeze(worker)
    worker.kill()
    wait_until(lambda: cluster.count("attempts WHERE outcome = 'lost'") == 7, "the dispatcher to take it all back")
    assert cluster.count("jobs WHERE state = 'queued' AND failures = 0") == 9
    cluster.backend.batches.cancel(cluster.rows("SELECT id FROM batches")[0].id)
    cluster.worker(STEADY)
    batch_id = cluster.submit(cluster.documents(2, words=20, start=20))
    cluster.wait_for_end(batch_id)
    cluster.audit()


def test_a_deadline_stops_what_runs_and_keeps_what_is_done(either_cluster: Cluster) -> None:
    cluster = either_cluster
    (worker,) = cluster.start(engine=CRAWL)
    batch_id = cluster.submit(cluster.documents(2, words=20), max_tokens=8, summary_tokens=8, deadline_s=3600.0)
    endless = cluster.submit(cluster.documents(9, words=20, start=10), deadline_s=3600.0, **ENDLESS)
    cluster.wait_for_end(batch_id)
    cluster.wait_for_running(worker, 7)
    with cluster.backend.database.write() as session:
        session.connection().exec_driver_sql("UPDATE batches SET expires_at = 1")
    cluster.wait_for_end(endless, "expired")
    wait_until(lambda: cluster.count("workers WHERE running = 0") == 1, "the worker to drop what has expired")
    cluster.wait_for_end(cluster.submit(cluster.documents(2, words=20, start=30), max_tokens=8, summary_tokens=8))
    wait_until(lambda: cluster.count("batches WHERE state = 'expired' AND expired_at IS NULL") == 0, "the last stamp")
    cluster.audit()
    assert cluster.state(batch_id) == "completed"
    assert cluster.count("jobs WHERE state = 'expired'") == 9
    assert cluster.count("results") == 4
