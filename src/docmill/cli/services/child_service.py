"""A docmill command that runs as a child process and is started again when it dies."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from docmill.broker.child_processes import die_with_parent

_EXPLAINED = (1, 2)  # exit codes of errors that a restart would only repeat
_MAX_QUICK_ENDS = 5
_STABLE_AFTER_S = 60.0
_STOP_S = 15.0


class RestartLimit:
    """Allows restarts until a service has ended five times in a row within a minute of its start."""

    def __init__(self) -> None:
        self._quick_ends = 0
        self._started_at = time.monotonic()

    def started(self) -> None:
        """Note that the service starts now."""
        self._started_at = time.monotonic()

    def allows(self, status: int) -> bool:
        """Note that the service ended with this status (negative for a signal); may it be started again?"""
        was_stable = time.monotonic() - self._started_at > _STABLE_AFTER_S
        self._quick_ends = 0 if was_stable else self._quick_ends + 1
        return status not in _EXPLAINED and self._quick_ends < _MAX_QUICK_ENDS


class ChildService:
    """`docmill ARGUMENTS` as a child process in its own session.

    Ctrl-C in the terminal does not reach it; it ends when its parent ends. Output goes to `log`, by default to the
    parent's standard output and error. `environment` is added to this process's.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path | None = None
    ) -> None:
        self.name = name
        self.log = log
        self._arguments = arguments
        self._environment = environment
        self._restarts = RestartLimit()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def exit_status(self) -> int | None:
        """The exit code, or minus the signal that ended it; None while it runs and before it is started."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start the process. `-P` keeps the files of the current directory from being imported."""
        self._restarts.started()
        output = None
        if self.log is not None:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            output = self.log.open("ab")
            output.write(f"--- {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} start\n".encode())
            output.flush()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "docmill", *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                env={**os.environ, **self._environment},
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        finally:
            if output is not None:
                output.close()

    def restart_if_ended(self) -> bool:
        """Start the process again if it has ended. False when it explained its end, or keeps ending."""
        status = self.exit_status
        if status is not None:
            if not self._restarts.allows(status):
                return False
            self.start()
        return True

    def last_log_line(self) -> str:
        """The last line of its log file that says something."""
        lines = self.log.read_text("utf-8", "replace").splitlines()[-50:] if self.log is not None else []
        messages = [line.strip() for line in lines if line.strip() and not line.startswith("---")]
        return messages[-1] if messages else "there is no message in its log"

    def terminate(self) -> None:
        """Send SIGTERM, if it runs."""
        if self._process is not None:
            self._process.terminate()

    def wait_or_kill(self, timeout_s: float) -> None:
        """Wait for its end; kill it after `timeout_s` seconds."""
        if self._process is None:
            return
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def stop_all(services: Sequence[ChildService], drain_timeout_s: float) -> None:
    """End all services: SIGTERM, time for workers to finish or requeue their jobs, then SIGKILL."""
    for service in services:
        service.terminate()
    deadline = time.monotonic() + _STOP_S + drain_timeout_s
    for service in services:
        service.wait_or_kill(max(0.1, deadline - time.monotonic()))
