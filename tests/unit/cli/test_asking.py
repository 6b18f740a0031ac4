"""`docmill query`, `results`, `export` and `trace`, as they are typed."""

from __future__ import annotations

import csv
import io
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet
import pytest
from sqlalchemy import text

from docmill.storage.reads.documents import DocumentFilter
from docmill.storage.views import VIEWS
from tests.unit.cli.conftest import Docmill
from tests.unit.cli.test_batches import Cluster

ANSWER = "The aim is understanding. Dragons spit fire."


@pytest.fixture
def cluster(ready: Path) -> Cluster:
    return Cluster(ready)


@pytest.fixture
def batch(docmill: Docmill, cluster: Cluster, documents: Path) -> str:
    """A batch of two documents that are done."""
    batch = docmill("submit", "docs/a.txt", "docs/b.md", "-q").out.strip()
    cluster.run(ANSWER)
    return batch


def test_a_query_is_a_table_csv_or_json(docmill: Docmill, batch: str) -> None:
    sql = "SELECT document, chunks, completion_tokens, NULL AS gap, engine_s FROM v_documents ORDER BY document"
    header, first, second = docmill("query", sql).out.splitlines()
    assert header.split() == ["document", "chunks", "completion_tokens", "gap", "engine_s"]
    assert (first.split(), second.split()) == (["docs/a.txt", "1", "9", "0.5"], ["docs/b.md", "1", "9", "0.5"])
    rows = list(csv.DictReader(io.StringIO(docmill("query", sql, "--csv").out)))
    assert [(row["document"], row["gap"], row["engine_s"]) for row in rows] == [
        ("docs/a.txt", "", "0.5"), ("docs/b.md", "", "0.5"),
    ]  # fmt: skip
    assert docmill("query", sql, "--json").json == [
        {"document": name, "chunks": 1, "completion_tokens": 9, "gap": None, "engine_s": 0.5}
        for name in ("docs/a.txt", "docs/b.md")
    ]
    assert docmill("query", "SELECT job FROM v_jobs WHERE job < 0", "--json").json == []


def test_a_statement_comes_from_the_argument_standard_input_or_a_file(
    docmill: Docmill, batch: str, environment: Path
) -> None:
    (environment / "q.sql").write_text("SELECT count(*) AS n\nFROM v_jobs -- all of them\n")
    asked = [
        docmill("query", "SELECT count(*) AS n FROM v_jobs", "--csv"),
        docmill("query", "-", "--csv", stdin="SELECT count(*) AS n FROM v_jobs"),
        docmill("query", "--file", "q.sql", "--csv"),
    ]
    assert [(shown.code, shown.out) for shown in asked] == [(0, "n\n2\n")] * 3
    assert docmill("query").code == docmill("query", "SELECT 1", "--file", "q.sql").code == 2


def test_a_query_that_writes_is_wrong_use_and_says_so(docmill: Docmill, batch: str) -> None:
    refused = docmill("query", "DELETE FROM jobs")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith("docmill: docmill query is read-only: a statement must begin with SELECT")
    assert docmill("query", "WITH d AS (SELECT 1) DELETE FROM jobs").code == 2
    assert docmill("query", "SELECT count(*) AS n FROM jobs", "--csv").out == "n\n2\n"


def test_a_long_table_ends_where_its_limit_is_and_says_how_to_have_all(docmill: Docmill, batch: str) -> None:
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500) SELECT i FROM n"
    short = docmill("query", numbers)
    assert (len(short.out.splitlines()), "the first 1,000 rows" in short.err) == (1001, True)
    assert len(docmill("query", numbers, "--limit", "0").out.splitlines()) == 1501
    assert len(docmill("query", numbers, "--json").json) == 1500
    stopped = docmill("query", numbers.replace(" WHERE i < 1500", ""), "--csv", "--timeout", "0.2")
    assert (stopped.code, "longer than 0.2 s" in stopped.err) == (1, True)


def test_results_of_failed_documents_of_some_names_and_of_the_last_hours(
    docmill: Docmill, cluster: Cluster, batch: str
) -> None:
    def names(*options: str) -> list[str]:
        shown = docmill("results", "latest", "--json", *options)
        assert shown.code == 0, shown.err
        return [record["document"] for record in shown.json_lines]

    assert names("--failed") == []
    assert names("--document", "a.txt") == names("--document", "docs/a*") == names("--document", "*.txt")
    assert names("--document", "a.txt") == ["docs/a.txt"]
    assert names("--document", "c.txt") == []
    with cluster.database.write() as session:
        session.execute(text("UPDATE documents SET finished_at = finished_at - 3600 WHERE name = 'docs/a.txt'"))
    half_an_hour_ago = datetime.fromtimestamp(time.time() - 1800, UTC).isoformat()
    assert names("--since", "30m") == names("--since", half_an_hour_ago) == ["docs/b.md"]
    assert names("--since", "2h") == ["docs/a.txt", "docs/b.md"]
    docmill("submit", "docs/a.txt", "docs/b.md", "-q", "--max-tokens", "20")
    cluster.run(None)
    assert names("--failed", "--document", "*.md") == ["docs/b.md"]
    wrong = docmill("results", "latest", "--since", "yesterday")
    assert (wrong.code, "neither a duration like 30m" in wrong.err) == (2, True)


def test_a_name_is_a_documents_whole_name_its_end_or_a_pattern() -> None:
    for name in ("docs/[a].txt", "[a].txt", "docs/*", "*.txt", "?a?.txt"):
        assert DocumentFilter(name).matches("docs/[a].txt"), name
    for name in ("docs", "a.txt", ".txt", "[a]", "*.md"):
        assert not DocumentFilter(name).matches("docs/[a].txt"), name


@pytest.mark.parametrize(("what", "view", "count"), [("documents", "v_documents", 2), ("jobs", "v_jobs", 2)])
def test_an_export_has_the_columns_of_its_view_in_every_format(
    docmill: Docmill, batch: str, environment: Path, what: str, view: str, count: int
) -> None:
    lines = docmill("export", batch, "--what", what).json_lines
    assert [list(line) for line in lines] == [list(VIEWS[view])] * count
    for name in ("x.jsonl", "x.csv", "x.parquet"):
        exported = docmill("export", batch, "--what", what, "--out", name)
        assert (exported.code, exported.out, exported.err) == (0, "", f"{count} {what} in {name}\n")
    assert [json.loads(line) for line in (environment / "x.jsonl").read_text().splitlines()] == lines
    assert pyarrow.parquet.read_table(environment / "x.parquet").to_pylist() == lines
    with (environment / "x.csv").open(newline="") as file:
        assert [row["document"] for row in csv.DictReader(file)] == [line["document"] for line in lines]


def test_an_export_of_attempts_and_what_cannot_be_exported(docmill: Docmill, batch: str, environment: Path) -> None:
    attempts = docmill("export", "latest", "--what", "attempts").json_lines
    assert [(row["attempt"], row["outcome"], row["batch_size"]) for row in attempts] == [(1, "succeeded", 1.0)] * 2
    assert docmill("export", "latest", "--format", "parquet").code == 2
    assert docmill("export", "nope", "--out", "x.csv").code == 2
    assert docmill("export", "latest", "--out", "missing/x.csv").code == 1
    assert sorted(path.name for path in environment.iterdir()) == ["docs"]


def test_a_trace_shows_what_fed_a_summary_and_where_its_sentences_come_from(docmill: Docmill, batch: str) -> None:
    shown = docmill("trace", "a.txt")
    assert shown.code == 0
    assert "docs/a.txt: summary, from characters 0-57" in shown.out
    assert "chunk 0: characters 0-57" in shown.out
    assert "0-25: Understanding is the aim." in shown.out
    assert "no similar passage" in shown.out.partition("Dragons")[2]
    record = docmill("trace", "docs/a.txt", "--batch", batch, "--json").json
    first, second = record["texts"][0]["sentences"]
    assert (first["text"], first["passages"][0]["char_end"]) == ("The aim is understanding.", 25)
    assert first["passages"][0]["score"] > 0.5
    assert second["passages"] == []
    assert docmill("trace", "nowhere.txt").code == 2


def test_a_document_without_an_answer_is_said_to_have_none(docmill: Docmill, ready: Path, documents: Path) -> None:
    docmill("submit", "docs/a.txt", "-q")
    shown = docmill("trace", "a.txt")
    assert (shown.code, shown.out) == (0, "")
    assert "is open and has no answer yet" in shown.err
