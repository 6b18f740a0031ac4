"""The whole of docmill on exllamav2: its real package over the CPU stand-in, on two simulated GPUs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from docmill.catalogue.local_model import Model
from tests.exllamav2_cpu.child import SITE
from tests.exllamav2_cpu.installed import require_exllamav2
from tests.exllamav2_cpu.models import tiny_model
from tests.integration.conftest import Cluster, Service, wait_until

pytestmark = [pytest.mark.model, pytest.mark.slow]


MakeGpuCluster = Callable[..., Cluster]


@pytest.fixture
def make_gpu_cluster(make_cluster: Callable[..., Cluster], demo_model: Model, tmp_path: Path) -> MakeGpuCluster:
    """A cluster whose model is a directory, and whose GPUs are simulated."""
    require_exllamav2()
    directory = tiny_model(tmp_path / "tiny-llama", demo_model.path)

    def make(gpus: int, **settings: str) -> Cluster:
        cluster = make_cluster(
            LLM__MODEL=str(directory), LLM__CONTEXT_WINDOW="1024", TEST_GPUS=str(gpus), **settings
        )  # fmt: skip
        cluster.environment["PYTHONPATH"] = str(SITE)
        return cluster

    return make


def _start(cluster: Cluster) -> Service:
    cluster.dispatcher()
    worker = cluster.run("worker", "--slots", "4")
    wait_until(lambda: cluster.count("workers WHERE stopped_at IS NULL") == 2, "a worker on each GPU")
    return worker


def test_documents_become_summaries_on_every_gpu_of_the_box(make_gpu_cluster: MakeGpuCluster) -> None:
    gpu_cluster = make_gpu_cluster(2, TEST_POWER_W="100,300")
    _start(gpu_cluster)
    batch_id = gpu_cluster.submit(gpu_cluster.documents(12), chunk_tokens=200)
    gpu_cluster.wait_for_end(batch_id)
    gpu_cluster.audit()
    attempts = gpu_cluster.rows("SELECT * FROM attempts")
    assert {attempt.engine for attempt in attempts} == {"exllamav2"}
    assert {attempt.worker.rpartition("/")[2] for attempt in attempts} == {"gpu0", "gpu1"}
    for attempt in attempts:
        assert attempt.completion_tokens > 0
        assert attempt.peak_memory_bytes > 0
        assert attempt.peak_vram_bytes > 0
        assert attempt.energy_j > 0
        assert attempt.cached_tokens is not None
        assert attempt.prefill_s >= 0
        assert attempt.decode_s >= 0
    assert all(report.summary for report in gpu_cluster.backend.reports.documents(batch_id))
    samples = gpu_cluster.rows("SELECT worker, power_w, vram_bytes FROM worker_samples")
    assert {(row.worker.rpartition("/")[2], row.power_w) for row in samples} == {("gpu0", 100.0), ("gpu1", 300.0)}
    assert all(row.vram_bytes for row in samples)


def test_a_cuda_error_restarts_the_engine_and_loses_no_job(make_gpu_cluster: MakeGpuCluster, tmp_path: Path) -> None:
    happened = tmp_path / "happened"
    gpu_cluster = make_gpu_cluster(1, TEST_CUDA_ERROR_AT_STEP="40", TEST_FAULT_ONCE=str(happened))
    gpu_cluster.dispatcher()
    gpu_cluster.run("worker", "--slots", "4")
    batch_id = gpu_cluster.submit(gpu_cluster.documents(6), chunk_tokens=200)
    gpu_cluster.wait_for_end(batch_id)
    assert happened.exists()
    gpu_cluster.audit()
    assert gpu_cluster.count("jobs WHERE state <> 'succeeded'") == 0
    assert gpu_cluster.count("attempts WHERE outcome = 'failed'") <= 1  # only one that was alone in it is charged


def test_a_killed_worker_is_started_again_on_its_gpu(make_gpu_cluster: MakeGpuCluster) -> None:
    gpu_cluster = make_gpu_cluster(2)
    parent = _start(gpu_cluster)
    (victim,) = [p for p in psutil.Process(parent.pid).children() if p.cmdline()[-1] == "gpu1"]
    victim.kill()
    batch_id = gpu_cluster.submit(gpu_cluster.documents(6), chunk_tokens=200)

    def reborn() -> list[psutil.Process]:
        children = psutil.Process(parent.pid).children()
        return [p for p in children if p.pid != victim.pid and p.cmdline()[-1:] == ["gpu1"]]

    wait_until(reborn, "a new worker on gpu1")
    gpu_cluster.wait_for_end(batch_id)
    gpu_cluster.audit()
