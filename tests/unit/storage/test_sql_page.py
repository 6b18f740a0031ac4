"""docs/sql.md is correct: every query runs on both databases and returns rows, and every column is described."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from docmill.storage.moves.attempts import Failure, ReusedJob
from docmill.storage.reads.read_only_sql import run_query
from docmill.storage.views import VIEWS
from tests.unit.storage.conftest import Mill, generated
from tests.unit.storage.test_views import sample

PAGE = (Path(__file__).parents[3] / "docs" / "sql.md").read_text("utf-8")
QUERIES = dict(re.findall(r"^### ([^\n]*)\n(?:(?!^### ).)*?^```sql\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))


@pytest.fixture
def used(mill: Mill) -> Mill:
    """A database in which every kind of event has happened once."""
    batch_id = mill.submit(2, 2, 1)
    first, second, third, fourth, _ = mill.job_ids(batch_id)
    workers = mill.register("w", slots=4)
    for job_id in (first, second):
        mill.worker().complete(mill.claim(job_id), generated(prompt_tokens=300, completion_tokens=60))
    workers.seen(running=1, sample=sample())
    mill.worker().retry(mill.claim(third), Failure("EngineFailed", "it broke"), delay_s=0.0)
    mill.run(third)
    mill.worker().fail(mill.claim(fourth), Failure("PromptTooLong", "too long"))
    again = mill.submit(2, key="again", reuse_key="equal")
    computed, reused = mill.job_ids(again)
    mill.run(computed)
    assert isinstance(mill.worker().claim(reused), ReusedJob)
    mill.end_documents()
    return mill


def test_every_query_of_the_page_answers_on_both_databases(used: Mill) -> None:
    assert len(QUERIES) >= 10
    for title, query in QUERIES.items():
        with run_query(used.database, query, timeout_s=60.0) as answer:
            rows = list(answer.rows)
        assert rows, title
        assert len(set(answer.columns)) == len(answer.columns), title


def test_the_savings_the_costs_and_the_waits_are_those_that_were(used: Mill) -> None:
    def ask(words: str) -> list[dict[str, Any]]:
        (query,) = (query for title, query in QUERIES.items() if words in title)
        with run_query(used.database, query) as answer:
            return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]

    first, again = (row.id for row in used.rows("SELECT id FROM batches ORDER BY submission_key DESC"))
    reuse, cache, cost, waits = (
        {row["batch"]: row for row in ask(words)}
        for words in ("reuse saved", "cache saved", "What a batch cost", "percentiles")
    )
    assert (reuse[first]["reused"], reuse[first]["tokens_not_computed"]) == (0, 0)
    assert (reuse[again]["reused"], reuse[again]["tokens_not_computed"]) == (1, 3 + 7)
    assert (cache[first]["prompt_tokens"], cache[first]["cached_tokens"]) == (603, 3)
    assert cost[first]["engine_s"] == pytest.approx(3 * 0.5 / 2.5)
    assert cost[first]["cost"] == pytest.approx(0.5 * 3 * 0.2 / 3600)
    assert 0.1 <= waits[first]["p50"] <= waits[first]["p90"] <= waits[first]["p99"]
    assert {row["error_kind"]: row["attempts"] for row in ask("Failures")} == {"EngineFailed": 1, "PromptTooLong": 1}
    assert [(row["attempts"], row["failures"]) for row in ask("more than one try")] == [(2, 1)]


def test_every_column_of_every_view_is_described_under_its_view() -> None:
    for view, columns in VIEWS.items():
        _, _, behind = PAGE.partition(f"\n### `{view}`")
        section = behind.partition("\n##")[0]
        table = [line for line in section.splitlines() if line.startswith("| `")]
        described = [name for line in table for name in re.findall(r"`([a-z_]+)`", line.split(" | ")[0])]
        assert sorted(described) == sorted(columns), view
