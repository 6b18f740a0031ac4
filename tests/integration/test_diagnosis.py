"""Every diagnosis rule on a batch that was brought into the state it detects, and on a healthy batch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from docmill.insight.diagnosis.registry import Host
from docmill.insight.diagnosis.run_diagnosis import diagnose, diagnose_batch
from docmill.insight.findings import Status
from docmill.producer.model_text import ModelText
from docmill.storage.reads.batch_evidence import read_evidence
from tests.families.tiny_gguf import write_tiny_gguf
from tests.integration.conftest import STEADY, Cluster

MakeCluster = Callable[..., Cluster]
FAST = {"decode_steps_per_s": 20_000.0, "prefill_tokens_per_s": 10_000_000.0}


def warned(cluster: Cluster, batch_id: str) -> set[str]:
    """The checks that warn, as `docmill doctor --batch` has them."""
    _, findings = diagnose_batch(cluster.backend.database, batch_id, cluster.settings.home)
    assert all(finding.advice for finding in findings if finding.status is Status.WARN)
    return {finding.check for finding in findings if finding.status is Status.WARN}


def run(cluster: Cluster, documents: int, *, engine: dict[str, Any], slots: int = 4, **wishes: Any) -> str:
    """A batch of small documents, run to its end."""
    cluster.dispatcher()
    cluster.worker(engine, slots=slots)
    batch_id = cluster.submit(cluster.documents(documents, words=wishes.pop("words", 20)), **wishes)
    cluster.wait_for_end(batch_id)
    return batch_id


def test_a_healthy_batch_gives_no_warning(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(WORKER__SAMPLE_S="0.5")
    batch_id = run(cluster, 8, engine=STEADY, words=150)
    assert warned(cluster, batch_id) == set()
    command = cluster.run("doctor", "--batch", batch_id, "--json")
    assert command.wait() == 0
    said = json.loads(command.log.read_text())
    assert said["status"] == "pass"
    assert {finding["section"] for finding in said["findings"]} == {"latency", "memory", "quality", "processor"}


def test_too_few_slots_show_as_a_long_wait_and_an_unused_window(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(WORKER__LOOKAHEAD="0")
    batch_id = run(cluster, 80, engine={"decode_steps_per_s": 500.0}, slots=1)
    assert {"queue wait", "context window"} <= warned(cluster, batch_id)


def test_jobs_too_short_for_one_worker_show_as_a_starved_engine(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(WORKER__LOOKAHEAD="0", WORKER__SAMPLE_S="0.2")
    batch_id = cluster.submit(cluster.documents(500, words=20), merge="none")  # all there before the first sample
    cluster.dispatcher()
    cluster.worker(FAST, slots=16)
    cluster.wait_for_end(batch_id)
    assert {"occupancy", "engine starved"} <= warned(cluster, batch_id)


def test_a_locked_database_shows_as_slower_than_the_engine(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(WORKER__LEASE_S="30")
    batch_id = cluster.submit(cluster.documents(12, words=20), merge="none")
    cluster.dispatcher()
    cluster.wait_for_running(cluster.worker(STEADY))
    with cluster.backend.database.write() as session:
        session.connection()  # begins: SQLite's one lock is taken
        time.sleep(3)  # what runs now cannot be stored
    cluster.wait_for_end(batch_id)
    assert "database" in warned(cluster, batch_id)


def test_attempts_out_of_memory_are_found_by_their_message(make_cluster: MakeCluster, model_text: ModelText) -> None:
    cluster = make_cluster(WORKER__MAX_ATTEMPTS="1")
    every_prompt = list(model_text.renderer.render("system", "user").ids[:2])
    broken = {"raise_on": every_prompt, "raise_message": "CUDA out of memory. Tried to allocate 2.00 GiB"}
    batch_id = run(cluster, 2, engine=broken)
    assert "out of memory" in warned(cluster, batch_id)


def test_a_peak_close_to_the_machines_memory_warns(cluster: Cluster) -> None:
    evidence = read_evidence(cluster.backend.database, run(cluster, 2, engine=STEADY))
    assert evidence.peak_memory_bytes > 0
    roomy = Host(cores=4, memory_bytes=2 * evidence.peak_memory_bytes, vram_bytes=0, has_chat_template=True)
    tight = replace(roomy, memory_bytes=int(1.05 * evidence.peak_memory_bytes))
    for host, status in ((roomy, Status.PASS), (tight, Status.WARN)):
        (finding,) = [f for f in diagnose(evidence, host) if f.check == "peak of memory"]
        assert finding.status is status


@pytest.mark.parametrize(
    ("engine", "wishes", "check"),
    [
        ({}, {"sampling": {"temperature": 1.3}}, "temperature"),
        ({"words": ["again"]}, {"merge": "none"}, "loops"),
        ({"wordiness": 4}, {"merge": "none"}, "cut answers"),
        ({"words": [""]}, {"merge": "none"}, "empty answers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_poor_answers_show_in_their_text(
    cluster: Cluster, engine: dict[str, Any], wishes: dict[str, Any], check: str
) -> None:
    batch_id = run(cluster, 3, engine=STEADY | engine, **wishes)
    assert check in warned(cluster, batch_id)


def test_a_model_without_a_chat_template_warns(cluster: Cluster, home: Path, tmp_path: Path) -> None:
    (vocabulary,) = (home / "models").glob("*smollm2*/*.gguf")
    model = write_tiny_gguf(tmp_path / "bare.gguf", "llama", vocabulary)
    cluster.dispatcher()
    cluster.run("worker", "--engine", "simulated", "--model", str(model), "--slots", "4")
    batch_id = cluster.submit(
        cluster.documents(2, words=20), model=str(model), chunk_tokens=64, summary_tokens=16, max_tokens=16
    )
    cluster.wait_for_end(batch_id)
    assert "chat template" in warned(cluster, batch_id)


@pytest.mark.model
def test_a_real_engine_on_one_thread_leaves_cores_idle(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(LLM__MODEL="smollm2-135m-instruct", LLM__OPTIMIZATION__THREADS="1", WORKER__SAMPLE_S="0.3")
    cluster.dispatcher()
    cluster.run("worker", "--engine", "llamacpp", "--slots", "2")
    batch_id = cluster.submit(cluster.documents(6, words=60), merge="none", max_tokens=48)
    cluster.wait_for_end(batch_id)
    evidence = read_evidence(cluster.backend.database, batch_id)
    (worker,) = evidence.workers
    alone = replace(evidence, workers=[replace(worker, engine_cpu_percent=98.0)])  # whatever else ran
    assert worker.engine_cpu_percent is not None
    assert 0 < worker.engine_cpu_percent < 115
    for seen, cores, warns in ((alone, 1, False), (alone, 8, True), (evidence, 8, True)):
        host = Host(cores=cores, memory_bytes=0, vram_bytes=0, has_chat_template=True)
        found = [f for f in diagnose(seen, host) if f.check in ("one thread", "other programs")]
        assert any(finding.status is Status.WARN for finding in found) is warns, found


@pytest.mark.slow
def test_text_that_takes_longer_to_split_than_to_run_warns(cluster: Cluster, tmp_path: Path) -> None:
    cluster.dispatcher()
    cluster.worker(FAST, slots=16)
    (tmp_path / "digits.txt").write_text("".join(f"{n * 7919 % 1_000_003}" for n in range(200_000)))
    batch_id = cluster.submit([str(tmp_path / "digits.txt")], merge="none", chunk_tokens=7_000, max_tokens=8)
    cluster.wait_for_end(batch_id)
    assert "tokenizing" in warned(cluster, batch_id)
