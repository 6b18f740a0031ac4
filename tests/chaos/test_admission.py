"""A database or a broker that can be read and not written: intake stops with a reason, everybody else waits, nothing
is corrupted, and all goes on by itself."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from broker.app import make_app
from broker.embedded import EmbeddedBroker
from broker.errors import BrokerFull
from broker.publish import ping
from tests.integration.conftest import SLOW, Cluster, Service, wait_until
from tests.unit.broker.conftest import client_of


@dataclass
class Trouble:
    """A database on which `begin` brings the trouble and `end` takes it away; `said` is in the error."""

    url: str
    begin: Callable[[], None]
    end: Callable[[], None]
    said: str


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Trouble]:
    """SQLite on a disk of its own, of eight megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    ballast = disk / "ballast"

    def fill() -> None:
        empty_the_log(disk / "docmill.db")  # it would be written over, which takes no room
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))

    yield Trouble(f"sqlite:///{disk}/docmill.db", fill, ballast.unlink, "database or disk is full")
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.fixture
def read_only_file(tmp_path: Path) -> Iterator[Trouble]:
    """SQLite in a file that cannot be changed, whoever tries."""
    path = tmp_path / "docmill.db"
    files = [str(path), f"{path}-wal"]
    path.touch()
    if not shutil.which("chattr") or subprocess.run(["chattr", "+i", path], capture_output=True).returncode != 0:
        pytest.skip("files cannot be made immutable here: it takes root and a file system that knows how")
    subprocess.run(["chattr", "-i", path], check=True)
    path.unlink()

    def change(flag: str) -> None:
        subprocess.run(["chattr", flag, *files], check=True)

    yield Trouble(f"sqlite:///{path}", lambda: change("+i"), lambda: change("-i"), "readonly database")
    subprocess.run(["chattr", "-i", *filter(os.path.exists, files)], check=True)


@pytest.fixture
def read_only_server(postgres_server: str, postgres_url: str) -> Iterator[Trouble]:
    """Postgres after a switch of its servers: connections are cut, and new ones can only read."""
    name = sa.make_url(postgres_url).database
    admin = sa.create_engine(
        sa.make_url(postgres_server).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )

    def run(*statements: str) -> None:
        with admin.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    yield Trouble(
        postgres_url,
        lambda: run(
            f"ALTER DATABASE {name} SET default_transaction_read_only = on",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
        ),
        lambda: run(f"ALTER DATABASE {name} RESET default_transaction_read_only"),
        "read-only transaction",
    )
    admin.dispose()


@pytest.fixture(params=["full_disk", "read_only_file", "read_only_server"])
def trouble(request: pytest.FixtureRequest) -> Trouble:
    found: Trouble = request.getfixturevalue(request.param)
    return found


def empty_the_log(path: Path) -> None:
    connection = sqlite3.connect(path)
    wait_until(lambda: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0, "an empty log")
    connection.close()


def refused(cluster: Cluster, *, start: int) -> str:
    """What a submit says that is turned away: one sentence."""
    command = cluster.run("submit", *cluster.documents(2, words=20, start=start))
    assert command.wait() == 1
    (sentence,) = command.log.read_text().splitlines()
    assert sentence.startswith("docmill: ")
    return sentence


def says(service: Service, what: str) -> int:
    return service.log.read_text().count(what)


def test_a_database_that_cannot_be_written_stops_intake_and_is_waited_for(
    trouble: Trouble, make_cluster: Callable[..., Cluster]
) -> None:
    cluster = make_cluster(trouble.url)
    (worker,) = cluster.start(engine=SLOW)
    dispatcher = cluster.services[0]
    batch_id = cluster.submit(cluster.documents(9, words=20))
    cluster.wait_for_running(worker, 7)
    trouble.begin()
    try:
        assert trouble.said in refused(cluster, start=20)
        wait_until(lambda: says(dispatcher, "trying again until it answers"), "the dispatcher to say that it waits")
        wait_until(lambda: says(worker, "no job is taken until it answers"), "the worker to say that it waits")
        wait_until(lambda: says(worker, "no longer ours"), "a lease to pass")
        for service in (worker, dispatcher):
            assert service.process.poll() is None
            assert says(service, "the database ") <= 6, service.log.read_text()
        assert says(worker, "no longer ours") <= 7, "it says so once of each job"
    finally:
        trouble.end()
    cluster.wait_for_end(batch_id)
    cluster.audit()
    assert cluster.count("jobs WHERE failures > 0") == 0
    assert cluster.count("batches") == 1
    assert says(worker, "the database answers again") == 1
    if cluster.client.database.is_sqlite:
        assert cluster.rows("PRAGMA integrity_check") == [("ok",)]
    cluster.stop()


def test_a_broker_without_memory_stops_intake_and_is_waited_for(cluster: Cluster) -> None:
    (worker,) = cluster.start(engine=SLOW)
    dispatcher = cluster.services[0]
    batch_id = cluster.submit(cluster.documents(12, words=20))
    cluster.wait_for_running(worker, 7)
    with client_of(cluster.broker.url) as client:
        client.config_set("maxmemory", "1")
        assert "its memory is full (maxmemory)" in refused(cluster, start=20)
        assert cluster.count("batches") == 1, "what was refused was not stored"
        wait_until(lambda: cluster.count("jobs WHERE state = 'running'") == 0, "what ran to be done")
        wait_until(lambda: says(worker, "no job is taken until it does"), "the worker to say that it waits")
        wait_until(lambda: says(dispatcher, "trying again until it answers"), "the dispatcher to say that it waits")
        late = cluster.worker()
        wait_until(lambda: says(late, "no job is taken until it does"), "a new worker to wait from its beginning")
        late.signal(signal.SIGTERM)
        assert late.wait() == 0
        assert worker.process.poll() is None
        for service in (worker, dispatcher):
            assert says(service, "its memory is full") == 1, service.log.read_text()
            assert says(service, "Traceback") == 0, service.log.read_text()
        client.config_set("maxmemory", "0")
    cluster.wait_for_end(batch_id)
    cluster.audit()
    assert cluster.count("attempts WHERE outcome <> 'succeeded'") == 0
    assert says(worker, "the broker takes messages again") == 1


@pytest.mark.parametrize(
    ("begin", "said"),
    [
        ("CONFIG SET maxmemory 1", "its memory is full"),
        ("CONFIG SET min-replicas-to-write 1", "NOREPLICAS"),
        ("REPLICAOF 127.0.0.1 1", "read only replica"),
    ],
)
def test_a_broker_that_answers_and_takes_nothing_is_full_and_no_longer_when_it_takes(
    tmp_path: Path, begin: str, said: str
) -> None:
    with EmbeddedBroker(tmp_path) as broker, client_of(broker.url) as client:
        app = make_app(broker.url)
        ping(app)
        client.execute_command(*begin.split())
        with pytest.raises(BrokerFull, match=said):
            ping(app)
        for mend in ("CONFIG SET maxmemory 0", "CONFIG SET min-replicas-to-write 0", "REPLICAOF NO ONE"):
            client.execute_command(*mend.split())
        ping(app)
