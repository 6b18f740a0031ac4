"""Every statement that runs while jobs run finds its rows by an index, because the table may hold a million jobs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from docmill.storage.moves.attempts import Failure
from docmill.storage.moves.finish_batches import end_unfinished_work
from docmill.storage.states import JobState
from tests.unit.storage.conftest import Mill, generated


@contextmanager
def plans(mill: Mill) -> Iterator[list[tuple[str, str]]]:
    """Collects (statement, step of its query plan) for every executed statement, as SQLite reports it."""
    found: list[tuple[str, str]] = []

    def explain(_c: object, cursor: sa.engine.interfaces.DBAPICursor, statement: str, parameters: object, _x: object,
                many: bool) -> None:  # fmt: skip
        if statement.split()[0] in ("SELECT", "UPDATE", "DELETE", "INSERT"):
            asking = cursor.connection.cursor()
            asking.execute("EXPLAIN QUERY PLAN " + statement, parameters[0] if many else parameters)  # type: ignore[index]
            found.extend((statement, row[3]) for row in asking.fetchall())

    sa.event.listen(mill.database.engine, "before_cursor_execute", explain)
    yield found
    sa.event.remove(mill.database.engine, "before_cursor_execute", explain)


def prepare(mill: Mill) -> str:
    batch_id = mill.submit(*[3] * 4)
    mill.outbox.mark_published(mill.outbox.unpublished("m", 6))
    return batch_id


def claimed(mill: Mill) -> list[int]:
    return [row.id for row in mill.rows("SELECT id FROM jobs WHERE state = 'queued' LIMIT 2")]


HOT: dict[str, Callable[[Mill, str], object]] = {
    "claim": lambda mill, batch: mill.claim(claimed(mill)[0]),
    "heartbeat": lambda mill, batch: mill.worker().heartbeat([mill.claim(job_id) for job_id in claimed(mill)]),
    "complete": lambda mill, batch: mill.run(claimed(mill)[0]),
    "fail": lambda mill, batch: mill.worker().fail(mill.claim(claimed(mill)[0]), Failure("a", "b")),
    "retry": lambda mill, batch: mill.worker().retry(mill.claim(claimed(mill)[0]), Failure("a", "b"), delay_s=0),
    "release": lambda mill, batch: mill.worker().release(mill.claim(claimed(mill)[0])),
    "published": lambda mill, batch: mill.outbox.published("m"),
    "unpublished": lambda mill, batch: mill.outbox.unpublished("m", 10),
    "mark_published": lambda mill, batch: mill.outbox.mark_published(mill.outbox.unpublished("m", 10)),
    "overdue": lambda mill, batch: mill.outbox.overdue("m", age_s=1.0, limit=10),
    "rescue": lambda mill, batch: mill.rescue(max_losses=3),
    "ended": lambda mill, batch: mill.documents.with_ended_level(),
    "settle": lambda mill, batch: mill.finish_batches(),
    "models at work": lambda mill, batch: mill.outbox.models_at_work(),
    "status": lambda mill, batch: mill.reports.batch(batch),
    "failures": lambda mill, batch: mill.reports.failures(batch),
    "live: at work": lambda mill, batch: mill.reports.at_work(5),
    "live: queues": lambda mill, batch: mill.reports.queues(),
    "live: attempts": lambda mill, batch: mill.reports.recent_attempts(["m"]),
    "newest failures": lambda mill, batch: mill.reports.failures(batch, newest=10),
    "documents": lambda mill, batch: list(mill.reports.documents(batch)),
    "first failure": lambda mill, batch: mill.documents.first_failure(mill.document_ids(batch)[0]),
    "cancel": lambda mill, batch: mill.batches.cancel(batch),
    "expire": lambda mill, batch: end_unfinished_work(mill.database, batch, JobState.EXPIRED),
    "retry failed": lambda mill, batch: mill.batches.retry_failed(batch),
}
_SCANS = re.compile(r"SCAN (jobs|documents|chunks|attempts|results|batches)\b")


@pytest.mark.parametrize("act", HOT)
def test_it_searches_by_an_index_and_scans_no_table(sqlite_mill: Mill, act: str) -> None:
    mill = sqlite_mill
    batch_id = prepare(mill)
    running, ended = mill.job_ids(batch_id)[-2:]
    mill.claim(running)
    mill.worker().complete(mill.claim(ended), generated())
    with plans(mill) as found:
        HOT[act](mill, batch_id)
    ours = [(statement, step) for statement, step in found if not statement.startswith("SELECT id FROM")]
    assert any("SEARCH" in step for _, step in ours), "the plan was not seen"
    assert [(statement, step) for statement, step in ours if _SCANS.search(step)] == []
