"""A cluster of real services on this machine, each a process that a test may kill, and an auditor at its end."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import sqlalchemy as sa

from docmill.broker.child_processes import die_with_parent
from docmill.broker.embedded_broker import EmbeddedBroker
from docmill.producer.composition import Backend, broker_directory, database_url
from docmill.producer.submission import SubmitOptions
from docmill.settings.defaults import Settings
from docmill.settings.load import load_settings
from docmill.storage.database import Database
from docmill.storage.schema import upgrade
from tests.homes import link_home
from tests.integration.audit import audit

T = TypeVar("T")
PATIENCE_S = 90.0  # a deadline, not a wait: other work may have this machine
STEADY = {"decode_steps_per_s": 200.0}  # a job takes about a fifth of a second
SLOW = {"decode_steps_per_s": 15.0}  # about three seconds: whatever a test does to it happens while it runs
_WORDS = ("river", "stone", "winter", "letter", "copper", "garden", "market", "signal", "harbour", "engine", "window")


def wait_until(holds: Callable[[], T | bool | None], what: str, timeout_s: float = PATIENCE_S) -> T:
    """The first true value of `holds`; fails with `what` was waited for."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = holds()
        if value:
            return value  # type: ignore[return-value]
        time.sleep(0.03)
    pytest.fail(f"waited {timeout_s:g} s in vain: {what}")


@dataclass
class Service:
    """One running command of docmill."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        return self.process.wait(timeout_s)

    @property
    def engine(self) -> psutil.Process | None:
        """A worker's engine process, None where there is none just now."""
        for child in psutil.Process(self.pid).children():
            if "docmill.worker.engine_main" in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                return child
        return None


@dataclass
class Cluster:
    """Broker, database, and services that are started as a test asks for them."""

    home: Path
    storage_url: str | None
    extra: dict[str, str] = field(default_factory=dict)
    services: list[Service] = field(default_factory=list)

    @cached_property
    def environment(self) -> dict[str, str]:
        settings = {
            "DOCMILL_HOME": str(self.home),
            "DOCMILL_WORKER__LEASE_S": "2",
            "DOCMILL_PRODUCER__REPUBLISH_S": "1",
            "DOCMILL_PRODUCER__DISPATCH_INTERVAL_S": "0.05",
            "DOCMILL_LLM__MODEL": "simulated",
        }
        if self.storage_url:
            settings["DOCMILL_STORAGE__URL"] = self.storage_url
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DOCMILL_")}
        return {**clean, "PYTHONUNBUFFERED": "1", **settings, **self.extra}

    @cached_property
    def settings(self) -> Settings:
        return load_settings(environment=self.environment)

    @cached_property
    def broker(self) -> EmbeddedBroker:
        return EmbeddedBroker(broker_directory(self.settings))

    @cached_property
    def backend(self) -> Backend:
        return Backend(self.settings)

    @property
    def database_url(self) -> str:
        return database_url(self.settings)

    def start(self, *, workers: int = 1, engine: dict[str, Any] | None = None) -> list[Service]:
        """A dispatcher and so many workers; returns the workers. They come up while the test goes on."""
        self.dispatcher()
        return [self.worker(engine) for _ in range(workers)]

    def dispatcher(self) -> Service:
        return self.run("dispatcher")

    def worker(self, engine: dict[str, Any] | None = None, *, slots: int = 4) -> Service:
        options = [f"--engine-option={name}={value}" for name, value in (engine or STEADY).items()]
        return self.run("worker", "--engine", "simulated", "--slots", str(slots), *options)

    def run(self, *arguments: str) -> Service:
        log = self.home / "logs" / f"{arguments[0]}-{len(self.services)}.log"
        log.parent.mkdir(exist_ok=True)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "docmill", *arguments],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=self.environment,
                start_new_session=True, preexec_fn=die_with_parent, cwd=Path(__file__).parents[2],
            )  # fmt: skip
        self.services.append(Service(arguments[0], process, log))
        return self.services[-1]

    def documents(self, count: int, *, words: int = 150, start: int = 0) -> list[str]:
        """Files of text, each different."""
        folder = self.home.parent / "documents"
        folder.mkdir(exist_ok=True)
        for number in range(start, start + count):
            text = " ".join(f"{_WORDS[(number + at) % len(_WORDS)]}{number}" for at in range(words))
            (folder / f"{number:04}.txt").write_text(f"Document {number}. {text}.")
        return [str(folder / f"{number:04}.txt") for number in range(start, start + count)]

    def submit(self, documents: Sequence[str], **options: Any) -> str:
        """Submit as the command does; returns the batch id. Each document takes two or three levels of jobs."""
        wishes = {"chunk_tokens": 128, "summary_tokens": 60, "max_tokens": 60} | options
        submission = self.backend.prepare(documents, SubmitOptions(**wishes))
        return self.backend.submit(submission).id

    def rows(self, query: str, **values: object) -> Sequence[sa.Row[Any]]:
        with self.backend.database.engine.connect() as connection:
            return connection.execute(sa.text(query), values).all()

    def count(self, what: str) -> int:
        """`count("jobs WHERE state = 'running'")`."""
        return int(self.rows(f"SELECT count(*) FROM {what}")[0][0])

    def state(self, batch_id: str) -> str:
        return str(self.rows("SELECT state FROM batches WHERE id = :b", b=batch_id)[0].state)

    def wait_for_work(self, jobs: int = 1) -> None:
        """Until the batch is under way, some of it done and much of it not, and the dispatchers are up."""
        for service in self.services:
            if service.name == "dispatcher" and service.process.poll() is None:
                wait_until(lambda log=service.log: "dispatcher at work" in log.read_text(), "a dispatcher to begin")
        wait_until(
            lambda: self.count("jobs WHERE state = 'succeeded'") >= jobs and self.count("jobs WHERE state = 'running'"),
            f"{jobs} jobs done and others running\n{self.last_words()}",
        )

    def running(self, worker: Service) -> int:
        """Jobs that this worker holds."""
        return self.count(f"jobs WHERE state = 'running' AND owner LIKE '%-{worker.pid}'")

    def wait_for_running(self, worker: Service, jobs: int = 1) -> None:
        """Until this worker holds so many jobs."""
        wait_until(lambda: self.running(worker) >= jobs, f"{jobs} jobs running on the worker {worker.pid}")

    def freeze(self, service: Service) -> None:
        """Stop a process as a paused machine would, but not inside a transaction of SQLite, which has one lock."""
        wait_until(lambda: self._frozen_outside_a_write(service), "a moment between two writes")

    def _frozen_outside_a_write(self, service: Service) -> bool:
        service.signal(signal.SIGSTOP)
        wait_until(lambda: psutil.Process(service.pid).status() == psutil.STATUS_STOPPED, "the process to stop")
        if not self.backend.database.is_sqlite:
            return True
        probe = sqlite3.connect(str(self.backend.database.url.database), timeout=0, isolation_level=None)
        try:
            probe.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            service.signal(signal.SIGCONT)
            return False
        finally:
            probe.close()
        return True

    def wait_for_end(self, batch_id: str, state: str = "completed") -> None:
        """Until the batch has ended, so and not otherwise."""
        ended = ("completed", "cancelled", "expired", "failed")
        wait_until(lambda: self.state(batch_id) in ended, f"the end of the batch\n{self.last_words()}")
        assert self.state(batch_id) == state

    def audit(self) -> None:
        """Everything has ended, once, and is counted right."""
        audit(self.database_url)

    def last_words(self) -> str:
        return "\n".join(f"{service.name}: {service.log.read_text()[-600:]}" for service in self.services)

    def stop(self) -> None:
        for service in self.services:
            if service.process.poll() is None:
                service.signal(signal.SIGCONT)
                service.kill()
        self.broker.stop()
        self.backend.database.close()


@pytest.fixture
def make_cluster(home: Path, tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Makes the test's cluster: its database is migrated, its broker runs."""
    made: list[Cluster] = []
    link_home(home, tmp_path / "home")

    def make(storage_url: str | None = None, **settings: str) -> Cluster:
        cluster = Cluster(
            tmp_path / "home", storage_url, {f"DOCMILL_{name}": value for name, value in settings.items()}
        )
        made.append(cluster)
        database = Database(cluster.database_url)
        upgrade(database)
        database.close()
        cluster.broker.start()
        return cluster

    yield make
    for cluster in made:
        cluster.stop()


@pytest.fixture
def cluster(make_cluster: Callable[..., Cluster]) -> Cluster:
    """On SQLite."""
    return make_cluster()


@pytest.fixture(params=["sqlite", "postgres"])
def either_cluster(request: pytest.FixtureRequest, make_cluster: Callable[..., Cluster]) -> Iterator[Cluster]:
    """On SQLite and on Postgres."""
    cluster = make_cluster(request.getfixturevalue("postgres_url") if request.param == "postgres" else None)
    yield cluster
    cluster.stop()  # before its database is dropped
