from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from docmill.storage.database import Database
from docmill.storage.errors import QueryRefused, StorageError
from docmill.storage.reads.read_only_sql import QueryTimeout, run_query
from tests.unit.storage.conftest import Mill

_ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"

_NO_READS = (
    "DELETE FROM jobs",
    "-- SELECT\nUPDATE jobs SET priority = 9",
    "INSERT INTO hosts VALUES ('m', 'n', 1)",
    "DROP VIEW v_jobs",
    "CREATE TABLE mine AS SELECT 1",
    "WITH gone AS (DELETE FROM jobs RETURNING id) SELECT id FROM gone",
    "WITH d AS (SELECT 1) DELETE FROM jobs",
    "SELECT 1; DELETE FROM jobs",
    "SELECT 1; COMMIT; DELETE FROM jobs; SELECT 1",
    "EXPLAIN SELECT 1; COMMIT; DELETE FROM jobs",
    "EXPLAIN ANALYZE DELETE FROM jobs",
    "SELECT 1 INTO mine",
    "PRAGMA query_only = OFF",
    "PRAGMA journal_mode = DELETE",
    "BEGIN",
    "SELECT * FROM nowhere",
    "SELECT FROM WHERE",
    "VACUUM",
    "",
)


def ask(mill: Mill, statement: str, timeout_s: float | None = None) -> tuple[Sequence[str], list[tuple[Any, ...]]]:
    with run_query(mill.database, statement, timeout_s=timeout_s) as answer:
        return list(answer.columns), [tuple(row) for row in answer.rows]


def everything(mill: Mill) -> list[object]:
    tables = sa.inspect(mill.database.engine).get_table_names()
    return [sorted(tables), *(mill.rows(f"SELECT count(*) FROM {table}")[0][0] for table in sorted(tables))]


def test_a_statement_that_reads_is_answered_with_names_and_rows(mill: Mill) -> None:
    mill.submit(1, 1)
    for statement in (
        "SELECT name, position FROM documents ORDER BY position",
        "  -- those\n/* of; this */ select name, position from documents order by position;\n",
        "WITH d AS (SELECT name, position FROM documents) SELECT name, position FROM d ORDER BY position",
    ):
        assert ask(mill, statement) == (["name", "position"], [("d0", 0), ("d1", 1)])
    assert ask(mill, "VALUES (1, 'a''b%s:c')")[1] == [(1, "a'b%s:c")]
    assert ask(mill, "EXPLAIN SELECT * FROM jobs")[1]


def test_whatever_is_no_single_read_is_refused_and_nothing_is_changed(mill: Mill) -> None:
    mill.submit(2)
    before = everything(mill)
    for statement in _NO_READS:
        with pytest.raises(QueryRefused):
            ask(mill, statement)
        assert everything(mill) == before, statement
    mill.run(mill.job_ids(mill.rows("SELECT id FROM batches")[0].id)[0])  # and nothing is locked


def test_no_other_file_is_attached_and_no_extension_loaded(sqlite_mill: Mill, tmp_path: Path) -> None:
    for statement in (f"ATTACH '{tmp_path}/x.db' AS x", "SELECT load_extension('x')", "SELECT writefile('x', 'y')"):
        with pytest.raises(QueryRefused):
            ask(sqlite_mill, statement)
    assert list(tmp_path.iterdir()) == []


def test_the_refusal_says_what_is_taken(mill: Mill) -> None:
    with pytest.raises(QueryRefused, match=r"read-only: a statement must begin with SELECT, WITH, .*not with DELETE"):
        ask(mill, "delete from jobs")
    with pytest.raises(QueryRefused, match="nowhere"):
        ask(mill, "SELECT * FROM nowhere")


def test_a_query_that_takes_too_long_is_stopped(mill: Mill) -> None:
    with pytest.raises(QueryTimeout, match=r"longer than 0\.2 s"):
        ask(mill, _ENDLESS, timeout_s=0.2)


def test_rows_are_handed_on_as_they_come(mill: Mill) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    with run_query(mill.database, endless, timeout_s=60.0) as answer:
        assert [next(answer.rows)[0] for _ in range(3000)] == list(range(1, 3001))


def test_people_can_read_while_a_worker_writes(mill: Mill) -> None:
    batch_id = mill.submit(2)
    with mill.database.write() as session:
        session.execute(sa.text("UPDATE jobs SET priority = 1"))
        assert ask(mill, "SELECT DISTINCT priority FROM jobs")[1] == [(5,)]
    mill.run(mill.job_ids(batch_id)[0])


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match="there is no database"),
        run_query(Database(f"sqlite:///{tmp_path}/none.db"), "SELECT 1"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
