from __future__ import annotations
import random, time, os
from tests.integration.conftest import Cluster, wait_until


def test_storm(cluster: Cluster) -> None:
    (worker,) = cluster.start()
    batch_id = cluster.submit(cluster.documents(60))
    rng = random.Random(int(os.environ.get("SEED", "0")))
    n = 0
    cluster.wait_for_work(3)
    while cluster.state(batch_id) == "in_progress" and n < 25:
        n += 1
        p = cluster.broker._process
        from tests.unit.broker.conftest import client_of

        with client_of(cluster.broker.url) as client:
            client.flushall()
            if rng.random() < 0.7:
                client.execute_command("BGREWRITEAOF")
        p.kill()
        p.wait()
        time.sleep(rng.choice([0, 0, 0, 0, 0.02, 0.1]))
        cluster.broker.start()
        done = cluster.count("jobs WHERE state='succeeded'")
        for _ in range(100):
            if worker.process.poll() is not None:
                break
            if (
                cluster.count("jobs WHERE state='succeeded'") > done + 2
                and cluster.count("jobs WHERE state='running'") > 2
            ):
                break
            time.sleep(0.1)
        if worker.process.poll() is not None:
            break
        print("kill", n, cluster.count("jobs WHERE state='succeeded'"), flush=True)
    log = worker.log.read_text()
    print("POLL", worker.process.poll(), "kills", n, log.count("Unrecoverable"))
    assert worker.process.poll() is None
