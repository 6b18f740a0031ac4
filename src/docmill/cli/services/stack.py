"""The one-machine stack: embedded broker, dispatcher and worker, as `docmill run` and `docmill up` start it.

The services are the same commands that a cluster runs, as child processes in sessions of their own: Ctrl-C
reaches only the command in the foreground, which then ends them in order. They end with it whatever kills it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import click
from filelock import FileLock, Timeout

from docmill.broker.child_processes import die_with_parent
from docmill.broker.embedded_broker import EmbeddedBroker
from docmill.cli.services.restarts import Restarts
from docmill.producer.composition import broker_directory, database_url
from docmill.settings.defaults import Settings
from docmill.storage.database import Database
from docmill.storage.schema import require_current, upgrade

_STOP_S = 15.0


class StackFailed(click.ClickException):
    """A service of the stack ended and cannot be brought back."""


class AlreadyRunning(click.ClickException):
    """Another stack runs on this home."""


@dataclass(slots=True)
class _Service:
    name: str
    arguments: Sequence[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    restarts: Restarts = field(default_factory=Restarts)


class Stack:
    """A context manager: the services run while the block does.

    `global_options` are handed to the services' commands (as in `docmill --profile big worker`).
    """

    def __init__(self, settings: Settings, global_options: Sequence[str], worker_options: Sequence[str]) -> None:
        self._settings = settings
        self._options = list(global_options)
        self._broker = None if settings.broker.url else EmbeddedBroker(broker_directory(settings))
        self._lock = FileLock(settings.home / "stack.lock")
        self._services = [
            self._service("dispatcher", ["dispatcher"]),
            self._service("worker", ["worker", *worker_options]),
        ]

    def __enter__(self) -> Stack:
        self._settings.home.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise AlreadyRunning(
                f"another docmill already runs on {self._settings.home}; use `docmill submit` beside it, or --home"
            ) from None
        try:
            self._prepare_database()
            if self._broker is not None:
                self._broker.start()
            for service in self._services:
                self._launch(service)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def logs(self) -> Path:
        """The directory of the services' log files."""
        return self._settings.home / "logs"

    @property
    def service_pids(self) -> list[int]:
        """The process ids of the services that run now."""
        return [service.process.pid for service in self._services if service.process is not None]

    def check(self) -> None:
        """Restart what has died. Raises StackFailed when it keeps dying, with its last words."""
        if self._broker is not None and not self._broker.is_alive():
            self._broker.start()
        for service in self._services:
            if service.process is None or service.process.poll() is None:
                continue
            if not service.restarts.may_follow(service.process.returncode):
                raise StackFailed(f"the {service.name} ended: {last_words(service.log)} (all of it: {service.log})")
            self._launch(service)

    def add(self, name: str, arguments: Sequence[str]) -> None:
        """Run one more command of docmill beside the others."""
        service = self._service(name, arguments)
        self._services.append(service)
        self._launch(service)

    def stop(self) -> None:
        """End everything: the worker first, so that it can put its jobs back; then the broker."""
        running = [s.process for s in self._services if s.process is not None and s.process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S + self._settings.worker.drain_timeout_s
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._broker is not None:
            self._broker.stop()
        self._lock.release()

    def _prepare_database(self) -> None:
        database = Database(database_url(self._settings))
        try:
            if self._settings.storage.url is None:
                upgrade(database)
            else:
                require_current(database)
        finally:
            database.close()

    def _service(self, name: str, arguments: Sequence[str]) -> _Service:
        return _Service(name, arguments, self.logs / f"{name}.log")

    def _launch(self, service: _Service) -> None:
        service.restarts.started()
        service.log.parent.mkdir(parents=True, exist_ok=True)
        with service.log.open("ab") as log:
            log.write(f"--- {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} start\n".encode())
            log.flush()
            service.process = subprocess.Popen(
                [sys.executable, "-m", "docmill", *self._options, *service.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environment()},
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def _environment(self) -> Mapping[str, str]:
        environment = {"DOCMILL_HOME": str(self._settings.home), "PYTHONUNBUFFERED": "1"}
        if self._broker is not None:
            environment["DOCMILL_BROKER__URL"] = self._broker.url
        return environment


def last_words(log: Path) -> str:
    """The last line of a log file that says something."""
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines()[-50:]]
    spoken = [line for line in lines if line and not line.startswith("---")]
    return spoken[-1] if spoken else "it said nothing"
