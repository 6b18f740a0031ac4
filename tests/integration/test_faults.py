"""Whatever dies, every job ends once: one service is killed, stopped or made to forget, the rest carries on."""

from __future__ import annotations

import signal
from collections.abc import Callable

import psutil
import pytest

from docmill.broker.embedded_broker import is_answering
from tests.integration.conftest import SLOW, Cluster, wait_until
from tests.unit.broker.conftest import client_of, kill


def test_kill_9_of_a_worker_leaves_its_jobs_to_another(either_cluster: Cluster) -> None:
    cluster = either_cluster
    doomed, _ = cluster.start(workers=2)
    batch_id = cluster.submit(cluster.documents(8))
    cluster.wait_for_running(doomed, 3)
    engine = doomed.engine
    assert engine is not None
    cluster.freeze(doomed)
    assert cluster.running(doomed) > 0, "it holds jobs when it dies"
    doomed.kill()
    cluster.wait_for_end(batch_id)
    cluster.audit()
    assert cluster.count("attempts WHERE outcome = 'lost'") >= 1
    assert cluster.count("jobs WHERE failures > 0") == 0, "a lost worker is no fault of the job"
    assert not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE, "its engine ended with it"


def test_kill_9_of_the_engine_takes_no_job_along(cluster: Cluster) -> None:
    (worker,) = cluster.start()
    batch_id = cluster.submit(cluster.documents(6))
    cluster.wait_for_work(3)
    engine = worker.engine
    assert engine is not None
    engine.kill()
    cluster.wait_for_end(batch_id)
    cluster.audit()
    assert worker.process.poll() is None, "the worker has lived on"
    assert worker.engine not in (None, engine)
    assert cluster.count("documents WHERE state = 'done'") == 6


def test_sigterm_puts_a_workers_jobs_back_without_a_charge(cluster: Cluster) -> None:
    (worker,) = cluster.start(engine=SLOW)
    batch_id = cluster.submit(cluster.documents(4))
    cluster.wait_for_running(worker, 4)
    worker.signal(signal.SIGTERM)
    assert worker.wait(timeout_s=30) == 0
    assert cluster.count("jobs WHERE state = 'running'") == 0
    assert cluster.count("attempts WHERE outcome = 'released'") >= 4
    assert cluster.count("jobs WHERE failures > 0 OR losses > 0") == 0
    assert cluster.count("workers WHERE stopped_at IS NOT NULL AND running = 0") == 1
    cluster.worker()
    cluster.wait_for_end(batch_id)
    cluster.audit()


def test_a_worker_frozen_beyond_its_lease_is_fenced_out_when_it_wakes(cluster: Cluster) -> None:
    (frozen,) = cluster.start(engine=SLOW)
    batch_id = cluster.submit(cluster.documents(4))
    cluster.wait_for_running(frozen, 4)
    cluster.freeze(frozen)
    held = cluster.rows("SELECT id, epoch FROM jobs WHERE state = 'running'")
    cluster.worker()
    cluster.wait_for_end(batch_id)
    frozen.signal(signal.SIGCONT)
    wait_until(lambda: cluster.count("attempts WHERE outcome = 'fenced'") >= len(held), "the sleeper to be told")
    cluster.audit()
    for job in held:
        outcomes = [
            row.outcome
            for row in cluster.rows("SELECT outcome FROM attempts WHERE job_id = :j ORDER BY epoch", j=job.id)
        ]
        assert outcomes[job.epoch - 1] == "fenced"
        assert outcomes[-1] == "succeeded"
    assert frozen.process.poll() is None


def test_a_broker_that_forgets_everything_is_filled_again(cluster: Cluster) -> None:
    cluster.start()
    batch_id = cluster.submit(cluster.documents(8))
    cluster.wait_for_work(3)
    with client_of(cluster.broker.url) as client:
        client.flushall()
    cluster.wait_for_end(batch_id)
    cluster.audit()
    assert cluster.count("jobs WHERE failures > 0") == 0


def test_a_broker_killed_and_restarted_changes_nothing(cluster: Cluster) -> None:
    cluster.start()
    batch_id = cluster.submit(cluster.documents(8))
    cluster.wait_for_work(3)
    kill(cluster.broker)
    cluster.broker.start()
    cluster.wait_for_end(batch_id)
    cluster.audit()
    assert cluster.count("jobs WHERE failures > 0") == 0


def test_a_broker_away_for_longer_than_the_running_jobs_changes_nothing(cluster: Cluster) -> None:
    (worker,) = cluster.start()
    batch_id = cluster.submit(cluster.documents(8))
    cluster.wait_for_work(3)
    cluster.broker.stop()
    wait_until(lambda: cluster.count("jobs WHERE state = 'running'") == 0, "what ran to be done")
    wait_until(lambda: "Cannot connect" in worker.log.read_text(), "the worker to miss the broker")
    cluster.broker.start()
    cluster.wait_for_end(batch_id)
    cluster.audit()
    assert worker.process.poll() is None, "it found its broker again by itself"
    assert cluster.count("jobs WHERE failures > 0 OR losses > 0") == 0


def test_a_broker_that_loses_its_data_changes_nothing(cluster: Cluster) -> None:
    cluster.start()
    batch_id = cluster.submit(cluster.documents(8))
    cluster.wait_for_work(3)
    with client_of(cluster.broker.url) as client:
        client.flushall()
        client.execute_command("BGREWRITEAOF")
    kill(cluster.broker)
    assert not is_answering(cluster.broker._socket)
    cluster.broker.start()
    cluster.wait_for_end(batch_id)
    cluster.audit()


def test_a_dispatcher_killed_and_restarted_changes_nothing(cluster: Cluster) -> None:
    cluster.worker()
    dispatcher = cluster.dispatcher()
    batch_id = cluster.submit(cluster.documents(8))
    for done in (2, 20):
        cluster.wait_for_work(done)
        dispatcher.kill()
        dispatcher = cluster.dispatcher()
    cluster.wait_for_end(batch_id)
    cluster.audit()
    assert cluster.count("jobs WHERE failures > 0") == 0


def test_a_batch_submitted_while_nothing_runs_waits_and_is_done(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    cluster.broker.stop()
    batch_id = cluster.submit(cluster.documents(2))
    cluster.broker.start()
    cluster.start()
    cluster.wait_for_end(batch_id)
    cluster.audit()


def test_a_dispatcher_that_starts_while_the_broker_is_down_waits_for_it(cluster: Cluster) -> None:
    kill(cluster.broker)
    dispatcher = cluster.dispatcher()
    wait_until(lambda: "waiting up to 10 s for it" in dispatcher.log.read_text(), "a word that it waits")
    cluster.broker.start()
    wait_until(lambda: "dispatcher at work" in dispatcher.log.read_text(), "the dispatcher to begin")


@pytest.mark.slow
def test_a_broker_that_dies_again_and_again_stops_nobody(cluster: Cluster) -> None:
    """kombu does not survive every moment at which a broker can die: the worker begins again on the same engine."""
    (worker,) = cluster.start()
    batch_id = cluster.submit(cluster.documents(16))
    cluster.wait_for_work()
    for death in range(6):
        done = cluster.count("jobs WHERE state = 'succeeded'")
        kill(cluster.broker)
        cluster.broker.start()
        wait_until(
            lambda done=done: (
                cluster.count("jobs WHERE state = 'succeeded'") > done or cluster.state(batch_id) == "completed"
            ),
            f"work to go on after death {death + 1}",
        )
    cluster.wait_for_end(batch_id)
    cluster.audit()
    assert worker.process.poll() is None
    assert "DeprecationWarning" not in worker.log.read_text(), "what nobody can act on is not said"


def test_docmill_run_starts_again_what_is_killed_under_it(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    out = cluster.home / "out"
    run = cluster.run("run", *cluster.documents(40), "--engine", "simulated", "--slots", "1", "--out", str(out))
    wait_until(lambda: cluster.count("jobs WHERE state = 'succeeded'"), "the first answer")
    for name in ("dispatcher", "worker"):
        (doomed,) = [child for child in psutil.Process(run.pid).children() if name in child.cmdline()]
        doomed.kill()
        wait_until(
            lambda name=name: (cluster.home / "logs" / f"{name}.log").read_text().count(" start\n") == 2,
            f"another {name}",
        )
    assert run.wait() == 0, run.log.read_text()
    assert len(list(out.glob("*.md"))) == 40
    cluster.audit()
