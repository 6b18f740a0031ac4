"""The Python API on real services."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from docmill import BatchState, BatchStatus, Client, DocumentState
from docmill.storage.tables import Job
from tests.docs.pages import ROOT, blocks
from tests.integration.conftest import PATIENCE_S, SLOW, STEADY, Cluster


def test_it_submits_waits_and_reads(cluster: Cluster) -> None:
    with Client(cluster.settings) as client:
        batch = client.submit(*cluster.documents(2, words=20))
        with pytest.raises(TimeoutError, match=f"batch {batch} is still in_progress after 0 s"):
            client.wait(batch, timeout_s=0)
        cluster.start()
        seen: list[BatchStatus] = []
        status = client.wait(batch, timeout_s=PATIENCE_S, progress=seen.append)
        assert status.state is BatchState.COMPLETED
        assert seen[-1] == status
        assert {report.id for report in seen} == {batch.id}
        found = list(client.results(batch))
        assert [document.name for document in found] == ["0000.txt", "0001.txt"]
        assert all(document.summary for document in found)


def test_texts_in_memory_come_back_by_their_ids_as_they_finish(cluster: Cluster) -> None:
    texts = {f"text/{number}": f"Number {number} of the texts. " * (1 + 40 * (number % 3)) for number in range(9)}
    with Client(cluster.settings) as client:
        batch = client.submit(texts=texts, chunk_tokens=128, summary_tokens=60, max_tokens=60)
        cluster.start()
        finished = list(client.as_completed(batch, timeout_s=PATIENCE_S))
        assert sorted(document.name for document in finished) == sorted(texts)
        assert all(document.state is DocumentState.DONE and document.summary for document in finished)
        assert [document.name for document in client.results(batch.id)] == list(texts)
    cluster.audit()


def test_a_cancelled_batch_ends_and_its_documents_are_yielded(cluster: Cluster) -> None:
    cluster.start(engine=SLOW)
    with Client(cluster.settings) as client:
        batch = client.submit(texts={name: f"A text named {name}." for name in "abcdefgh"}, max_tokens=200)
        assert client.cancel(batch) > 0
        assert client.wait(batch, timeout_s=PATIENCE_S).state is BatchState.CANCELLED
        states = [document.state for document in client.as_completed(batch)]
        assert len(states) == 8
        assert set(states) <= {DocumentState.CANCELLED, DocumentState.DONE}
    cluster.audit()


def test_failed_jobs_are_retried(cluster: Cluster) -> None:
    cluster.environment["DOCMILL_WORKER__POISON_DEATHS"] = "1"
    with Client(cluster.settings) as client:
        batch = client.submit(texts={"one": "A text.", "two": "Another text."})
        with cluster.backend.database.read() as session:
            poison = session.scalars(sa.select(Job.prompt_ids).order_by(Job.id)).first() or ()
        (worker,) = cluster.start(engine={**STEADY, "die_on": list(poison)})
        assert client.wait(batch, timeout_s=PATIENCE_S).documents_failed == 1
        worker.kill()
        assert client.retry(batch) == 1
        cluster.worker()
        assert client.wait(batch, timeout_s=PATIENCE_S).documents_failed == 0
        assert all(document.summary for document in client.results(batch))


def test_the_page_about_it_runs(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start(engine={"decode_steps_per_s": 2_000})
    reports = tmp_path / "page" / "reports"
    reports.mkdir(parents=True)
    for number in range(3):
        (reports / f"{number}.txt").write_text(f"Report {number}. The river rose and the harvest was late. " * 30)
    code = "\n".join(block.body for block in blocks(ROOT / "docs" / "python.md") if block.language == "python")
    environment = {**cluster.environment, "PYTHONPATH": str(ROOT / "src")}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=reports.parent, env=environment, timeout=PATIENCE_S, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")
    for shown in ("3 documents", "completed 3/3", "jobs cancelled\ncancelled\n0 failed jobs", "no-such-file.txt: "):
        assert shown in ran.stdout
    cluster.audit()
