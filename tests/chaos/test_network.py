"""A worker on another host whose link goes down and stays down."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.chaos.clients import Client
from tests.chaos.run import Stage, opened
from tests.chaos.schedule import BatchPlan, Campaign, WorkerPlan
from tests.chaos.servers import until
from tests.chaos.verdict import Observed, judge

_PATIENCE_S = 90.0


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_worker_cut_off_for_good_stops_its_engine_and_others_do_its_jobs(home: Path) -> None:
    plan = BatchPlan(0.0, 0, 4)
    campaign = Campaign(
        0, "postgres", "simulated", append_only=True, workers=(WorkerPlan(steps_per_s=0.5, remote=True), WorkerPlan()),
        dispatcher_skews_s=(0.0,), batches=(plan,), faults=(),
    )  # fmt: skip
    with TemporaryDirectory(prefix="docmill-chaos-") as directory:
        stage = Stage(home, Path(directory) / "stage")
        stage.directory.mkdir()
        try:
            with opened(campaign, stage) as cluster:
                cluster.start()
                far, _ = cluster.workers
                until(lambda: all(worker.is_ready for worker in cluster.workers), "both workers", _PATIENCE_S)
                client = Client(0, plan, cluster, time.monotonic())
                client.start()
                until(lambda: cluster.running(far) >= 2, "the far worker to run jobs", _PATIENCE_S)
                assert cluster.far_host is not None
                cluster.far_host.cut(is_cut=True)
                until(client.is_over.is_set, "the client to be done", _PATIENCE_S)
                until(
                    lambda: cluster.rows("SELECT 1 FROM batches WHERE state = 'completed'"),
                    "the other worker to do everything", _PATIENCE_S,
                )  # fmt: skip
                until(
                    lambda: "no longer belongs to this worker; stopping it" in far.log.read_text(),
                    "the far worker to notice that it is cut off", _PATIENCE_S,
                )  # fmt: skip
                assert judge(cluster, [client], Observed()) == []
        except PermissionError as error:
            pytest.skip(str(error))
        finally:
            stage.close()
