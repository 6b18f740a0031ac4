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
from tempfile import TemporaryDirectory

import pytest
import sqlalchemy as sa
from redis.exceptions import ResponseError

from docmill.broker.celery_app import make_app
from docmill.broker.embedded_broker import EmbeddedBroker
from docmill.broker.errors import BrokerFull
from docmill.broker.publish import ping
from tests.integration.conftest import SLOW, Cluster, Service, wait_until
from tests.small_disk import SmallDisk, small_disk
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
    """SQLite on a disk that fills up."""
    with small_disk(tmp_path / "disk") as disk:
        file = disk.path / "docmill.db"

        def fill() -> None:
            empty_the_log(file)  # it would be written over, which takes no room
            disk.fill()

        yield Trouble(f"sqlite:///{file}", fill, disk.empty, "database or disk is full")


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
def read_only_server(postgres_admin: sa.Engine, postgres_url: str) -> Trouble:
    """Postgres after a switch of its servers: connections are cut, and new ones can only read."""
    begin, end = "SET default_transaction_read_only = on", "RESET default_transaction_read_only"
    return altered(postgres_admin, postgres_url, begin, end, "read-only transaction")


@pytest.fixture
def closed_server(postgres_admin: sa.Engine, postgres_url: str) -> Trouble:
    """Postgres that takes no connections, as while it restarts."""
    begin, end = "WITH ALLOW_CONNECTIONS false", "WITH ALLOW_CONNECTIONS true"
    return altered(postgres_admin, postgres_url, begin, end, "not currently accepting connections")


def altered(admin: sa.Engine, url: str, begin: str, end: str, said: str) -> Trouble:
    """A Postgres database that is altered so, and whose connections are cut."""
    name = sa.make_url(url).database

    def run(*statements: str) -> None:
        with admin.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    return Trouble(
        url, lambda: run(f"ALTER DATABASE {name} {begin}", cut), lambda: run(f"ALTER DATABASE {name} {end}"), said
    )


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
        wait_until(lambda: says(dispatcher, "retrying until it responds"), "the dispatcher to say that it waits")
        wait_until(lambda: says(worker, "no further jobs are taken"), "the worker to say that it waits")
        wait_until(lambda: says(worker, "no longer belongs to this worker"), "a lease to pass")
        for service in (worker, dispatcher):
            assert service.process.poll() is None
            assert says(service, "the database ") <= 6, service.log.read_text()
        assert says(worker, "no longer belongs to this worker") <= 7, "it says so once of each job"
    finally:
        trouble.end()
    cluster.wait_for_end(batch_id)
    cluster.audit()
    assert cluster.count("jobs WHERE failures > 0") == 0
    assert cluster.count("batches") == 1
    assert says(worker, "the database responds again") == 1
    if cluster.backend.database.is_sqlite:
        assert cluster.rows("PRAGMA integrity_check") == [("ok",)]
    cluster.stop()


def test_docmill_run_goes_on_behind_a_database_that_was_away(
    closed_server: Trouble, make_cluster: Callable[..., Cluster]
) -> None:
    cluster = make_cluster(closed_server.url)
    documents = cluster.documents(40, words=20)
    run = cluster.run("run", *documents, "--engine", "simulated", "--slots", "1", "--out", str(cluster.home / "out"))
    wait_until(lambda: cluster.count("jobs WHERE state = 'succeeded'"), "the first answer")
    closed_server.begin()
    try:
        wait_until(lambda: says(run, "; retrying until it responds"), "a word that it waits")
        log = cluster.home / "logs" / "worker.log"
        wait_until(lambda: "no further jobs are taken until it responds" in log.read_text(), "the worker to notice")
    finally:
        closed_server.end()
    assert run.wait() == 0, run.log.read_text()
    assert says(run, "the database ") == 2, "it says once that it waits, and once that it answers"
    assert len(list((cluster.home / "out").glob("*.md"))) == 40
    cluster.audit()
    cluster.stop()


def test_services_that_start_while_the_database_is_away_wait_for_it(
    closed_server: Trouble, make_cluster: Callable[..., Cluster]
) -> None:
    cluster = make_cluster(closed_server.url)
    batch_id = cluster.submit(cluster.documents(2, words=20))
    closed_server.begin()
    try:
        cluster.start()
        for service in cluster.services:
            wait_until(lambda log=service.log: "waiting up to 60 s for it" in log.read_text(), "a word that it waits")
            assert closed_server.said in service.log.read_text()
    finally:
        closed_server.end()
    cluster.wait_for_end(batch_id)
    cluster.stop()


@pytest.fixture
def postgres_on_a_small_disk(postgres_admin: sa.Engine) -> Iterator[tuple[str, SmallDisk]]:
    """A database whose tables lie on a disk of their own; the server's log of writes does not."""
    with TemporaryDirectory(prefix="docmill-disk-") as directory, postgres_admin.connect() as connection:
        Path(directory).chmod(0o711)  # the server may be another user
        owner = Path(connection.exec_driver_sql("SHOW data_directory").scalar_one()).stat().st_uid
        with small_disk(Path(directory) / "disk", megabytes=32, owner=owner) as disk:
            connection.exec_driver_sql(f"CREATE TABLESPACE small LOCATION '{disk.path}'")
            connection.exec_driver_sql("CREATE DATABASE on_small TABLESPACE small")
            yield postgres_admin.url.set(database="on_small").render_as_string(hide_password=False), disk
            disk.empty()
            connection.exec_driver_sql("DROP DATABASE on_small WITH (FORCE)")
            connection.exec_driver_sql("DROP TABLESPACE small")


def test_a_full_disk_of_postgres_stops_intake_and_is_waited_for(
    postgres_on_a_small_disk: tuple[str, SmallDisk], make_cluster: Callable[..., Cluster]
) -> None:
    url, disk = postgres_on_a_small_disk
    cluster = make_cluster(url)
    (worker,) = cluster.start(engine={"decode_steps_per_s": 500.0})
    batch_id = cluster.submit(cluster.documents(150, words=20))
    cluster.wait_for_work()
    disk.fill()
    wait_until(lambda: says(worker, "no further jobs are taken until it responds"), "no room for another answer")
    more = ("--max-tokens", "40", *cluster.documents(40, words=20, start=200))
    command = cluster.run("submit", *more)
    assert command.wait() == 1
    (sentence,) = command.log.read_text().splitlines()
    assert "No space left on device" in sentence
    assert all(service.process.poll() is None for service in cluster.services[:2])
    disk.empty()
    cluster.wait_for_end(batch_id)
    assert cluster.run("submit", *more).wait() == 0, "the same command once more"
    cluster.wait_for_end(str(cluster.rows("SELECT id FROM batches ORDER BY created_at DESC LIMIT 1")[0].id))
    cluster.audit()
    assert cluster.count("batches") == 2
    assert cluster.count("documents") == 190
    assert says(worker, "Traceback") == 0, worker.log.read_text()
    cluster.stop()


@pytest.fixture(params=["memory", "disk"])
def full_broker(
    request: pytest.FixtureRequest, tmp_path: Path, make_cluster: Callable[..., Cluster]
) -> Iterator[tuple[Cluster, Trouble]]:
    """A cluster whose broker has no memory, or no room on its disk for what it has to write down."""
    if request.param == "disk":
        with small_disk(tmp_path / "home" / "broker") as disk:
            cluster = make_cluster()

            def fill() -> None:
                disk.fill()
                wait_until(lambda: not takes_writes(cluster), "the broker to notice")

            yield cluster, Trouble("", fill, disk.empty, "MISCONF")
            cluster.stop()
    else:
        cluster = make_cluster()

        def limit(memory: str) -> None:
            with client_of(cluster.broker.url) as client:
                client.config_set("maxmemory", memory)

        yield cluster, Trouble("", lambda: limit("1"), lambda: limit("0"), "its memory is full (maxmemory)")


def takes_writes(cluster: Cluster) -> bool:
    with client_of(cluster.broker.url) as client, suppress(ResponseError):
        return bool(client.set("probe", ""))
    return False


def test_a_broker_that_is_full_stops_intake_and_is_waited_for(full_broker: tuple[Cluster, Trouble]) -> None:
    cluster, trouble = full_broker
    (worker,) = cluster.start(engine=SLOW)
    dispatcher = cluster.services[0]
    batch_id = cluster.submit(cluster.documents(12, words=20))
    cluster.wait_for_running(worker, 7)
    trouble.begin()
    assert trouble.said in refused(cluster, start=20)
    assert cluster.count("batches") == 1, "what was refused was not stored"
    wait_until(lambda: cluster.count("jobs WHERE state = 'running'") == 0, "what ran to be done")
    wait_until(lambda: says(worker, "no further jobs are taken until it does"), "the worker to say that it waits")
    wait_until(lambda: says(dispatcher, "retrying until it responds"), "the dispatcher to say that it waits")
    late = cluster.worker()
    wait_until(lambda: says(late, "no further jobs are taken until it does"), "a new worker to wait from its beginning")
    late.signal(signal.SIGTERM)
    assert late.wait() == 0
    assert worker.process.poll() is None
    for service in (worker, dispatcher):
        assert says(service, f"does not accept messages: {trouble.said}") == 1, service.log.read_text()
        assert says(service, "Traceback") == 0, service.log.read_text()
    trouble.end()
    cluster.wait_for_end(batch_id)
    cluster.audit()
    assert cluster.count("attempts WHERE outcome <> 'succeeded'") == 0
    assert says(worker, "the broker accepts messages again") == 1


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
