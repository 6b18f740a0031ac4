from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from docmill.producer.merge_runner import MergeRunner
from docmill.storage.attempt_metrics import GeneratedText
from docmill.storage.database import Database
from docmill.storage.moves.attempts import Failure, WorkerIdentity
from docmill.storage.moves.documents import Documents
from docmill.storage.moves.finish_batches import finish_batches
from docmill.storage.moves.jobs import Jobs
from docmill.storage.states import JobState
from docmill.storage.tables import Job
from tests.unit.cli.conftest import Docmill

BATCH = re.compile(r"\d{6}-[0-9a-z]{6}")


def test_quiet_prints_the_id_alone(docmill: Docmill, ready: Path, documents: Path) -> None:
    submitted = docmill("submit", "docs/a.txt", "--quiet")
    assert (submitted.code, submitted.err) == (0, "")
    assert BATCH.fullmatch(submitted.out.rstrip("\n"))


def test_without_a_broker_a_submission_is_stored_and_says_what_runs_it(
    docmill: Docmill, ready: Path, documents: Path
) -> None:
    submitted = docmill("submit", "docs/a.txt", "docs/b.md", "--metadata", "team=legal", "--metadata", "a=b=c")
    assert submitted.code == 0
    assert BATCH.fullmatch(submitted.out.strip())
    assert submitted.err.splitlines() == [
        "2 documents, 2 jobs, model smollm2-135m-instruct",
        "stored; `docmill up` runs it",
    ]
    status = docmill("status", submitted.out.strip(), "--json").json
    assert (status["batch"], status["state"]) == (submitted.out.strip(), "in_progress")
    assert status["metadata"] == {"team": "legal", "a": "b=c"}
    assert status["documents"] == {"total": 2, "open": 2, "failed": 0}
    assert (status["jobs"]["total"], status["jobs"]["queued"]) == (2, 2)


def test_a_submission_as_json_says_what_became_of_each_document(docmill: Docmill, ready: Path, documents: Path) -> None:
    submitted = docmill("submit", "docs", "--json")
    assert submitted.code == 1  # two could not be read
    record = submitted.json
    assert (record["documents"], record["jobs"], record["resumed"]) == (2, 2, False)
    assert [skipped["document"] for skipped in record["skipped"]] == ["docs/c.txt", "docs/d.txt"]
    assert [line.partition(":")[0] for line in submitted.err.splitlines()] == [
        "skipped docs/c.txt", "skipped docs/d.txt",
    ]  # fmt: skip
    assert docmill("status", "latest", "--json").json["documents"]["total"] == 2


def test_standard_input_is_a_document(docmill: Docmill, ready: Path) -> None:
    assert docmill("submit", "-", "-q", stdin="What came through the pipe.").code == 0
    (record,) = docmill("results", "latest", "--json").json_lines
    assert (record["document"], record["characters"], record["state"]) == ("stdin", 27, "open")


def test_all_batches_are_listed_newest_first(docmill: Docmill, ready: Path, documents: Path) -> None:
    nothing = docmill("status")
    assert (nothing.code, nothing.out) == (0, "")
    assert "no batches yet" in nothing.err
    ids = [docmill("submit", f"docs/{name}", "-q").out.strip() for name in ("a.txt", "b.md")]
    listed = docmill("status")
    assert [line.split()[0] for line in listed.out.splitlines()] == ["batch", *reversed(ids)]
    assert [status["batch"] for status in docmill("status", "--json").json] == ids[::-1]


def test_a_batch_is_found_by_the_beginning_of_its_id(docmill: Docmill, ready: Path, documents: Path) -> None:
    ids = [docmill("submit", f"docs/{name}", "-q").out.strip() for name in ("a.txt", "b.md")]
    for batch in ids:
        assert docmill("status", batch[:11], "--json").json["batch"] == batch
    ambiguous = docmill("status", ids[0][:6])
    assert ambiguous.code == 2
    assert "give more of the batch id" in ambiguous.err


def test_the_status_of_a_batch_that_nobody_works_on_says_so(docmill: Docmill, ready: Path, documents: Path) -> None:
    docmill("submit", "docs/a.txt", "--metadata", "team=legal", "-q")
    shown = docmill("status", "latest")
    assert "1 queued" in shown.out
    assert "team=legal" in shown.out
    assert "not measured yet" in shown.out
    assert (
        "no worker that serves smollm2-135m-instruct was seen in the last minute; start one with `docmill up`"
        in shown.err
    )


class Cluster:
    """A worker's and a dispatcher's hands on the commands' database; the engine is this test."""

    def __init__(self, home: Path) -> None:
        self.database = Database(f"sqlite:///{home / 'docmill.db'}")
        self.levels = Documents(self.database)
        self.advancer = MergeRunner(self.levels, home)
        self.jobs = Jobs(self.database, WorkerIdentity("host/cpu-1", "openvino", "smollm2-135m-instruct"), lease_s=60)

    def run(self, text: str | None) -> None:
        """Answer every queued job with this text; None fails them. Then end what has ended."""
        with self.database.read() as session:
            ids = list(session.scalars(select(Job.id).where(Job.state == JobState.QUEUED)))
        for job in filter(None, map(self.jobs.claim, ids)):
            if text is None:
                self.jobs.fail(job, Failure("engine", "the GPU fell off the bus"))
            else:
                self.jobs.complete(
                    job,
                    GeneratedText(
                        text=text, finish_reason="stop", prompt_tokens=job.prompt_tokens, completion_tokens=9,
                        queue_s=0.1, prefill_s=0.2, decode_s=0.3, peak_memory_bytes=1 << 20,
                    ),
                )  # fmt: skip
        self.settle()

    def settle(self) -> None:
        for ended in self.levels.with_ended_level():
            self.advancer.advance(ended)
        finish_batches(self.database)


@pytest.fixture
def cluster(ready: Path) -> Iterator[Cluster]:
    made = Cluster(ready)
    yield made
    made.database.close()


def test_results_are_in_input_order_in_every_format(
    docmill: Docmill, cluster: Cluster, documents: Path, environment: Path
) -> None:
    batch = docmill("submit", "docs/b.md", "docs/a.txt", "-q").out.strip()
    cluster.run('An answer, with "quotes" and 東京.')
    assert docmill("status", batch, "--json").json["state"] == "completed"
    records = docmill("results", batch, "--format", "jsonl").json_lines
    assert [(r["document"], r["state"], r["summary"]) for r in records] == [
        ("docs/b.md", "done", 'An answer, with "quotes" and 東京.'),
        ("docs/a.txt", "done", 'An answer, with "quotes" and 東京.'),
    ]
    assert docmill("results", batch, "--json").json_lines == records
    rows = list(csv.DictReader(io.StringIO(docmill("results", "latest", "--format", "csv").out)))
    assert [(row["document"], row["summary"]) for row in rows] == [(r["document"], r["summary"]) for r in records]
    markdown = docmill("results", batch).out
    assert markdown.index("# docs/b.md") < markdown.index("# docs/a.txt")
    assert 'An answer, with "quotes" and 東京.' in markdown

    assert docmill("results", batch, "--out", "out").err == "3 files in out/\n"
    assert sorted(path.name for path in (environment / "out").iterdir()) == [
        "docs__a.txt.md", "docs__b.md.md", "results.jsonl",
    ]  # fmt: skip
    assert docmill("results", batch, "--format", "csv", "--out", "all.csv").code == 0
    assert (environment / "all.csv").read_bytes().decode() == docmill("results", batch, "--format", "csv").out
    missing = docmill("results", batch, "--out", "missing/all.csv")
    assert (missing.code, "No such file or directory" in missing.err) == (1, True)


def test_one_answer_a_window_is_exported_with_where_it_came_from(
    docmill: Docmill, cluster: Cluster, environment: Path
) -> None:
    text = "".join(f"A sentence of {n} words. " for n in range(10, 50))
    (environment / "long.txt").write_text(text)
    assert docmill("submit", "long.txt", "--merge", "none", "--chunk-tokens", "60", "-q").code == 0
    cluster.run("none")
    (record,) = docmill("results", "latest", "--json").json_lines
    assert record["summary"] is None
    assert len(record["windows"]) > 2
    assert "".join(text[w["start"] : w["end"]] for w in record["windows"]) == text


def test_failed_jobs_are_shown_with_their_reason_and_retried(
    docmill: Docmill, cluster: Cluster, documents: Path
) -> None:
    batch = docmill("submit", "docs/a.txt", "docs/b.md", "-q").out.strip()
    cluster.run(None)
    shown = docmill("status", batch)
    assert "2: engine: the GPU fell off the bus" in shown.out
    assert "**failed**" in docmill("results", batch).out
    assert docmill("retry", batch, "--json").json == {"batch": batch, "retried_jobs": 2}
    cluster.run("Better.")
    status = docmill("status", batch, "--json").json
    assert (status["state"], status["documents"]["failed"], status["jobs"]["succeeded"]) == ("completed", 0, 2)
    assert docmill("retry", batch).out == f"0 jobs of {batch} queued again\n"


def test_a_cancelled_batch_ends_and_is_not_cancelled_or_retried_again(
    docmill: Docmill, cluster: Cluster, documents: Path
) -> None:
    batch = docmill("submit", "docs/a.txt", "docs/b.md", "-q").out.strip()
    cancelled = docmill("cancel", batch)
    assert (cancelled.code, cancelled.out) == (0, f"2 jobs of {batch} cancelled\n")
    cluster.settle()
    status = docmill("status", batch, "--json").json
    assert (status["state"], status["jobs"]["cancelled"]) == ("cancelled", 2)
    for command in ("cancel", "retry"):
        refused = docmill(command, batch)
        assert refused.code == 1
        assert f"batch {batch} is cancelled: only an active" in refused.err
    assert docmill("cancel", docmill("submit", "docs/a.txt", "-q").out.strip(), "--json").json["cancelled_jobs"] == 1


def test_status_watch_ends_with_the_batch(docmill: Docmill, cluster: Cluster, documents: Path) -> None:
    docmill("submit", "docs/a.txt", "-q")
    cluster.run("An answer.")
    watched = docmill("status", "--watch")
    assert (watched.code, "completed" in watched.out) == (0, True)


def test_the_rate_that_was_measured_estimates_the_time_of_a_plan(
    docmill: Docmill, cluster: Cluster, documents: Path
) -> None:
    docmill("submit", "docs/a.txt", "-q")
    cluster.run("An answer.")
    assert re.search(r"about \d.* at the [\d,]+ tokens/s measured recently", docmill("chunks", "docs/b.md").out)
