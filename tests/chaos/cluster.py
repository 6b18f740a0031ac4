"""The services of one campaign, and what a supervisor does for them: who ends is begun again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa

from docmill.broker.child_processes import die_with_parent
from tests.chaos import command
from tests.chaos.far_host import FarHost
from tests.chaos.schedule import LEASE_S, Campaign, WorkerPlan
from tests.chaos.servers import Postgres, Valkey

_ROOT = Path(__file__).parents[2]
_SKEW = Path(__file__).parent / "skew"
_AGAIN_S = 0.5
_ENDS_S = 45.0  # a service that was asked to end and has not by then hangs


@dataclass
class Service:
    """A command of docmill that is kept running. `ready` is what its log says when it is at work."""

    name: str
    command: Sequence[str]
    environment: dict[str, str]
    log: Path
    ready: str
    process: subprocess.Popen[bytes] | None = None
    again_at: float = 0.0
    hit: bool = False  # by a fault that may end it
    said: int = 0  # bytes that earlier processes wrote into the log

    def begin(self) -> None:
        """Start its process."""
        self.said = self.log.stat().st_size if self.log.exists() else 0
        self.hit = False
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=self.environment,
                start_new_session=True, preexec_fn=die_with_parent, cwd=_ROOT,
            )  # fmt: skip

    @property
    def is_ready(self) -> bool:
        """Whether this process has come up."""
        if not self.log.exists():
            return False
        with self.log.open("rb") as said:
            said.seek(self.said)
            return self.ready.encode() in said.read()

    def send(self, number: signal.Signals) -> None:
        """Send its process a signal; nothing where it has none just now."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    @property
    def engine(self) -> psutil.Process | None:
        """A worker's engine process."""
        if self.process is None or self.process.poll() is not None:
            return None
        for child in psutil.Process(self.process.pid).children():
            if "docmill.worker.engine_main" in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                return child
        return None


@dataclass
class Cluster:
    """Everything that runs. `complaints` collects what must not have happened."""

    campaign: Campaign
    home: Path
    broker: Valkey
    storage_url: str  # from this host
    far_storage_url: str  # from another
    postgres: Postgres | None = None
    far_host: FarHost | None = None
    workers: list[Service] = field(default_factory=list)
    dispatchers: list[Service] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    restarts: int = 0

    def __post_init__(self) -> None:
        url = sa.make_url(self.storage_url)
        if url.get_backend_name() != "sqlite":
            url = url.set(drivername="postgresql+psycopg")
        self.plain = sa.create_engine(
            url, poolclass=sa.NullPool, connect_args={} if self.postgres is None else {"connect_timeout": 5}
        )
        self._over = threading.Event()
        self._ending = threading.Event()
        self._watching = threading.Thread(target=self._supervise, name="supervisor", daemon=True)

    @property
    def services(self) -> list[Service]:
        """All of them."""
        return [*self.workers, *self.dispatchers]

    @property
    def capacity(self) -> int:
        """Jobs that all workers together may hold at once: in the slots and the engine's lookahead."""
        return sum(worker.slots + 3 for worker in self.campaign.workers)

    def environment(self, *, skew_s: float = 0.0, remote: bool = False) -> dict[str, str]:
        """Of a service on a host of its own or this one."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("DOCMILL_", "PYTEST"))}
        model = "simulated" if self.campaign.engine == "simulated" else "smollm2-135m-instruct"
        settings = {
            "DOCMILL_HOME": str(self.home),
            "DOCMILL_WORKER__LEASE_S": str(LEASE_S),
            "DOCMILL_PRODUCER__REPUBLISH_S": "1",
            "DOCMILL_PRODUCER__DISPATCH_INTERVAL_S": "0.1",
            "DOCMILL_LLM__MODEL": model,
            "DOCMILL_STORAGE__URL": self.far_storage_url if remote else self.storage_url,
            "DOCMILL_BROKER__URL": self.broker.url,
            "PYTHONUNBUFFERED": "1",
        }
        skewed = {"PYTHONPATH": str(_SKEW), "CHAOS_SKEW_S": str(skew_s)} if skew_s else {}
        return {**clean, **settings, **skewed}

    def start(self) -> None:
        """Begin all services; they come up while the campaign goes on."""
        for number, skew_s in enumerate(self.campaign.dispatcher_skews_s):
            self.dispatchers.append(
                self._service(f"dispatcher-{number}", ["dispatcher"], "at work", self.environment(skew_s=skew_s))
            )
        for number, plan in enumerate(self.campaign.workers):
            self.workers.append(self._worker(number, plan))
        for service in self.services:
            service.begin()
        self._watching.start()

    def _worker(self, number: int, plan: WorkerPlan) -> Service:
        arguments = ["worker", "--engine", self.campaign.engine, "--slots", str(plan.slots)]
        arguments += ["--drain-timeout", str(plan.drain_timeout_s)]
        if self.campaign.engine == "simulated":
            arguments.append(f"--engine-option=decode_steps_per_s={plan.steps_per_s:g}")
        environment = self.environment(skew_s=plan.skew_s, remote=plan.remote)
        return self._service(f"worker-{number}", arguments, " serves ", environment, remote=plan.remote)

    def _service(
        self, name: str, arguments: list[str], ready: str, environment: dict[str, str], *, remote: bool = False
    ) -> Service:
        command = [sys.executable, "-m", "docmill", *arguments]
        if remote and self.far_host is not None:
            command = self.far_host.command(*command)
        return Service(name, command, environment, self.home / f"{name}.log", ready)

    def command(self, *arguments: str, out: Path | None = None) -> BaseProcess:
        """A command that a user calls."""
        return command.start(arguments, self.environment(), out or Path(os.devnull), self.home / f"{arguments[0]}.log")

    def rows(self, query: str, **values: object) -> Sequence[sa.Row[Any]] | None:
        """What the database says; None where it does not answer just now."""
        try:
            with self.plain.connect() as connection:
                return connection.execute(sa.text(query), values).all()
        except sa.exc.DBAPIError:
            return None

    def running(self, worker: Service) -> int:
        """Jobs that it holds by the database's word."""
        pid = worker.process.pid if worker.process else 0
        rows = self.rows("SELECT count(*) AS n FROM jobs WHERE state = 'running' AND owner LIKE :who", who=f"%-{pid}")
        return rows[0].n if rows else 0

    def _supervise(self) -> None:
        # What it begins ends with this thread (see `die_with_parent`), so it stays until all is over.
        while not self._over.wait(0.05):
            for service in () if self._ending.is_set() else self.services:
                if self._ending.is_set() or service.process is None or service.process.poll() is None:
                    continue
                if not service.again_at:
                    self._has_ended(service)
                elif time.monotonic() > service.again_at:
                    service.again_at = 0.0
                    self.restarts += 1
                    service.begin()

    def _has_ended(self, service: Service) -> None:
        assert service.process is not None
        service.again_at = time.monotonic() + _AGAIN_S
        if not service.hit and service.is_ready:
            self.complaints.append(f"{service.name} ended by itself with {service.process.returncode}")

    def stop_in_order(self) -> None:
        """SIGTERM to all; who does not end, or not in order, is complained of."""
        self._ending.set()
        for service in self.services:
            service.send(signal.SIGTERM)
        deadline = time.monotonic() + _ENDS_S
        for service in self.services:
            if service.process is None:
                continue
            try:
                code = service.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.complaints.append(f"{service.name} did not end within {_ENDS_S:g} s of SIGTERM")
            else:
                if code != 0 and not service.again_at and not service.hit:
                    self.complaints.append(f"{service.name} ended with {code} at SIGTERM")

    def kill(self) -> None:
        """End whatever is left."""
        self._over.set()
        for service in self.services:
            if service.process is not None and service.process.poll() is None:
                service.process.kill()
                service.process.wait()
        self.plain.dispose()
