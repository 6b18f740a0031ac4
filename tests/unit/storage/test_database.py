from __future__ import annotations

import select
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from docmill.storage.database import Database
from docmill.storage.errors import DatabaseUnavailable, StorageError
from docmill.storage.tables import Worker
from tests.unit.storage.conftest import Mill


def one_write(database: Database) -> None:
    with database.write() as session:
        session.execute(sa.text("UPDATE batches SET priority = priority"))


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///"])
def test_sqlite_in_memory_is_refused(url: str) -> None:
    with pytest.raises(StorageError, match="file"):
        Database(url)


@pytest.mark.parametrize("url", ["mysql://root@host/db", "not a url", "nosuchthing://x/y"])
def test_other_databases_are_refused_by_name(url: str) -> None:
    with pytest.raises(StorageError, match="sqlite"):
        Database(url)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
def test_every_spelling_of_postgres_uses_our_driver(scheme: str) -> None:
    assert Database(f"{scheme}://user@host/name").url.drivername == "postgresql+psycopg"


def test_a_database_is_named_without_its_password() -> None:
    database = Database("postgresql://user:hunter2@127.0.0.1:1/name")
    assert "hunter2" not in str(database)
    with pytest.raises(DatabaseUnavailable) as caught, database.read() as session:
        session.execute(sa.text("SELECT 1"))
    assert "hunter2" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


def test_a_postgres_that_goes_away_is_unavailable_and_comes_back(postgres_database: str) -> None:
    database = Database(postgres_database)
    terminate = sa.text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'docmill' "
        "AND datname = current_database() AND pid <> pg_backend_pid()"
    )
    admin = sa.create_engine(postgres_database)

    def write_while_it_goes_away() -> None:
        with database.write() as session:
            session.execute(sa.text("SELECT 1"))
            with admin.connect() as other:
                other.execute(terminate)
            session.execute(sa.text("SELECT 1"))

    with pytest.raises(DatabaseUnavailable):
        write_while_it_goes_away()
    one_write(database)
    with admin.connect() as other:
        other.execute(terminate)
    one_write(database)  # the pool notices that its idle connections are dead
    database.close()
    admin.dispose()


def test_a_read_only_database_is_unavailable(sqlite_mill: Mill) -> None:
    url = f"sqlite:///file:{sqlite_mill.database.url.database}?mode=ro&uri=true"
    with pytest.raises(DatabaseUnavailable, match="readonly"):
        one_write(Database(url))


def test_a_full_disk_is_unavailable_and_nothing_is_half_stored(sqlite_mill: Mill) -> None:
    mill = sqlite_mill
    batch_id = mill.submit(1)

    @sa.event.listens_for(mill.database.engine, "checkout")
    def fill(connection: sqlite3.Connection, _record: object, _proxy: object) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")

    fills_it = mill.create()
    with pytest.raises(DatabaseUnavailable, match="full"):
        mill.document(fills_it, 5_000)
    mill.check()
    sa.event.remove(mill.database.engine, "checkout", fill)
    with mill.database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    mill.run(mill.job_ids(batch_id)[0])


def test_a_damaged_file_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "docmill.db").write_bytes(b"this is no database" * 1000)
    with pytest.raises(DatabaseUnavailable, match="not a database"):
        one_write(Database(f"sqlite:///{tmp_path}/docmill.db"))


def test_no_free_connection_is_unavailable(migrated_url: str) -> None:
    database = Database(migrated_url, pool_size=1)
    pool = database.engine.pool
    assert isinstance(pool, sa.QueuePool)
    pool._timeout = 0.05
    held = [database.engine.connect() for _ in range(pool.size() + pool._max_overflow)]
    with pytest.raises(DatabaseUnavailable, match="slow"), database.read() as session:
        session.execute(sa.text("SELECT 1"))
    for connection in held:
        connection.close()
    database.close()


def test_a_failing_block_rolls_back_and_its_own_error_leaves(database: Database) -> None:
    worker = {"name": "w", "model": "m", "engine": "e", "slots": 1, "started_at": 1.0, "seen_at": 1.0}

    def write_and_fail() -> None:
        with database.write() as session:
            session.execute(sa.insert(Worker).values(**worker))
            raise KeyError("a bug of ours")

    with pytest.raises(KeyError):
        write_and_fail()
    with database.read() as session:
        assert session.execute(sa.select(Worker.name)).all() == []


def test_sqlite_writers_wait_for_each_other_and_survive_a_crash(sqlite_mill: Mill) -> None:
    with sqlite_mill.database.engine.connect() as connection:
        read = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in
                ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")}  # fmt: skip
    assert read == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30_000}


def test_a_worker_frozen_in_a_transaction_cannot_hold_its_rows_for_ever(postgres_database: str) -> None:
    database = Database(postgres_database)

    def freeze_in_a_write() -> None:
        with database.write() as session:
            assert session.scalar(sa.text("SHOW idle_in_transaction_session_timeout")) == "10s"
            session.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = '50ms'"))
            process = session.connection().connection.driver_connection
            assert process is not None
            select.select([process.fileno()], [], [], 60)  # readable when the server has hung up
            session.execute(sa.text("SELECT 1"))

    with pytest.raises(DatabaseUnavailable):
        freeze_in_a_write()
    database.close()


def test_the_databases_clock_is_seconds_since_1970(mill: Mill) -> None:
    with mill.database.read() as session:
        from docmill.storage.columns import db_now

        now = session.scalar(sa.select(db_now()))
        clock = "unixepoch()" if mill.database.is_sqlite else "extract(epoch from now())"
        expected = session.scalar(sa.text(f"SELECT {clock}"))
    assert isinstance(now, float)
    assert now == pytest.approx(float(expected or 0), abs=5)
