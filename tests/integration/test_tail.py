"""Text on its way: what a job writes is seen before it is stored, and is what is stored."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from docmill.broker.tail_channel import TailChannel
from docmill.storage.reads.tailed_jobs import TailedJobs
from tests.integration.conftest import Cluster, wait_until

VERY_SLOW = {"decode_steps_per_s": 5.0}  # about ten seconds a job: a command has the time to start


def first_job(cluster: Cluster) -> int:
    return int(cluster.rows("SELECT min(id) FROM jobs")[0][0])


def begin_tail(cluster: Cluster, what: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "docmill", "tail", what],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=cluster.environment, cwd=Path(__file__).parents[2],
        text=True, encoding="utf-8",
    )  # fmt: skip


@pytest.mark.parametrize("engine", ["simulated", pytest.param("openvino", marks=pytest.mark.model)])
def test_what_a_watcher_sees_is_the_beginning_of_what_is_stored(
    make_cluster: Callable[..., Cluster], engine: str
) -> None:
    model = "simulated" if engine == "simulated" else "smollm2-135m-instruct"
    cluster = make_cluster(LLM__MODEL=model)
    batch_id = cluster.submit(cluster.documents(1, words=40), max_tokens=120, summary_tokens=60, chunk_tokens=256)
    tailed, channel = TailedJobs(cluster.backend.database), TailChannel(cluster.broker.url)
    job_id = first_job(cluster)
    with channel.read(job_id) as watching:
        cluster.dispatcher()
        options = ["--engine-option", "decode_steps_per_s=15"] if engine == "simulated" else []
        cluster.run("worker", "--engine", engine, "--slots", "4", *options)
        seen = ""

        def ended() -> bool:
            nonlocal seen
            seen += watching.new_text(0.2)
            return tailed.job(job_id).state.is_terminal

        wait_until(ended, f"the job to end\n{cluster.last_words()}")
    channel.close()
    stored = tailed.job(job_id).text
    assert stored is not None
    assert len(seen) > 10
    assert stored.startswith(seen)
    cluster.wait_for_end(batch_id)


def test_tail_writes_a_running_jobs_text_before_it_is_stored_and_then_the_rest(cluster: Cluster) -> None:
    cluster.submit(cluster.documents(1, words=20))
    job_id = first_job(cluster)
    with begin_tail(cluster, str(job_id)) as tail:
        cluster.start(engine=VERY_SLOW)
        assert tail.stdout is not None
        first = tail.stdout.read(1)
        assert cluster.count(f"results WHERE job_id = {job_id}") == 0, "it was shown only when it was stored"
        rest = tail.stdout.read()
        assert tail.wait() == 0
    stored = TailedJobs(cluster.backend.database).job(job_id).text
    assert first + rest == f"{stored}\n"


def test_tail_follows_an_attempt_that_begins_anew(cluster: Cluster) -> None:
    cluster.submit(cluster.documents(1, words=20))
    job_id = first_job(cluster)
    with begin_tail(cluster, str(job_id)) as tail:
        workers = cluster.start(engine=VERY_SLOW)
        assert tail.stdout is not None
        assert tail.stderr is not None
        tail.stdout.read(1)
        workers[0].signal(signal.SIGTERM)
        workers[0].wait()
        cluster.worker({"decode_steps_per_s": 20.0})
        shown = tail.stdout.read()
        assert tail.wait() == 0
        assert "starts over" in tail.stderr.read()  # the worker that ends may have claimed it once more
    assert shown.endswith(f"{TailedJobs(cluster.backend.database).job(job_id).text}\n")


def test_tail_of_a_document_shows_its_jobs_of_every_level(cluster: Cluster) -> None:
    cluster.submit(cluster.documents(1))
    with begin_tail(cluster, "0000.txt") as tail:
        assert tail.stdout is not None
        assert tail.stderr is not None
        assert "0000.txt, level 0, 0: job 1, queued" in tail.stderr.readline()
        cluster.start()
        shown = tail.stdout.read()
        assert tail.wait() == 0
    texts = [text for (text,) in cluster.rows("SELECT text FROM results WHERE job_id IS NOT NULL")]
    assert len(texts) > 2
    assert max(cluster.rows("SELECT level FROM jobs"))[0] > 0
    assert all(text in shown for text in texts)
