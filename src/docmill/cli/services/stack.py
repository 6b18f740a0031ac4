"""The services of `docmill run` and `docmill up` on one machine: embedded broker, dispatcher and worker.

Dispatcher and worker are the commands that a cluster runs, as child processes. Ctrl-C reaches only the command in
the foreground, which then stops the services.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from filelock import FileLock, Timeout

from docmill.broker.embedded_broker import EmbeddedBroker
from docmill.cli.services.child_service import ChildService, stop_all
from docmill.producer.composition import broker_directory, database_url
from docmill.settings.defaults import Settings
from docmill.storage.database import Database
from docmill.storage.schema import require_current, upgrade


class Stack:
    """A context manager: the services run as long as the block. Raises ClickException if the home is in use.

    `global_options` go before the services' commands, as in `docmill --profile big worker`.
    """

    def __init__(
        self,
        settings: Settings,
        global_options: Sequence[str],
        *,
        model: str,
        engine: str | None = None,
        slots: int | None = None,
    ) -> None:
        worker = ["worker", "--model", model]
        worker += ["--engine", engine] if engine else []
        worker += ["--slots", str(slots)] if slots else []
        self._settings = settings
        self._options = list(global_options)
        self._broker = None if settings.broker.url else EmbeddedBroker(broker_directory(settings))
        self._lock = FileLock(settings.home / "stack.lock")
        self._services = [self._service("dispatcher", ["dispatcher"]), self._service("worker", worker)]

    def __enter__(self) -> Stack:
        self._settings.home.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise click.ClickException(
                f"another docmill already runs on {self._settings.home}; add work to it with `docmill submit`, "
                "or use another --home"
            ) from None
        try:
            prepare_database(self._settings)
            if self._broker is not None:
                self._broker.start()
            for service in self._services:
                service.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def logs(self) -> Path:
        """The directory of the services' log files."""
        return self._settings.home / "logs"

    def check(self) -> None:
        """Start services again that have ended. Raises ClickException with the log's last line if one keeps ending."""
        if self._broker is not None and not self._broker.is_alive():
            self._broker.start()
        for service in self._services:
            if not service.restart_if_ended():
                reason = f"{service.last_log_line()} (full log: {service.log})"
                raise click.ClickException(f"the {service.name} ended: {reason}")

    def add(self, name: str, arguments: Sequence[str]) -> None:
        """Run another docmill command with the stack."""
        service = self._service(name, arguments)
        self._services.append(service)
        service.start()

    def stop(self) -> None:
        """End everything: the services first, so that the worker can requeue its jobs; then the broker."""
        stop_all(self._services, self._settings.worker.drain_timeout_s)
        if self._broker is not None:
            self._broker.stop()
        self._lock.release()

    def _service(self, name: str, arguments: Sequence[str]) -> ChildService:
        environment = {"DOCMILL_HOME": str(self._settings.home), "PYTHONUNBUFFERED": "1"}
        if self._broker is not None:
            environment["DOCMILL_BROKER__URL"] = self._broker.url
        return ChildService(name, [*self._options, *arguments], environment, self.logs / f"{name}.log")


def prepare_database(settings: Settings) -> None:
    """Migrate SQLite in the home directory. Raises SchemaOutdated if a configured database is not current."""
    database = Database(database_url(settings))
    try:
        if settings.storage.url is None:
            upgrade(database)
        else:
            require_current(database)
    finally:
        database.close()
