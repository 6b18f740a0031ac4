"""The worker's side of its engine process: start it, exchange messages with it, end it.

The engine runs in its own process so that a crash in a native library cannot take the worker down. That process
executes `docmill.worker.engine_main`; it exits when its pipe closes, and with its parent, whatever kills that one.
"""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import threading

from docmill.worker.engine_messages import Finished, FromEngine, Ready, Stop, ToEngine
from docmill.worker.engines.spec import EngineSpec

_STOP_S = 5.0


class EngineProcess:
    """A running engine process. The thread that creates it must outlive it."""

    def __init__(self, spec: EngineSpec) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        # -P: modules in the current directory are never imported. The interpreter is started directly because
        # multiprocessing would put that directory on the path and import the parent's main module again.
        command = [sys.executable, "-P", "-m", "docmill.worker.engine_main", str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        self._sending = threading.Lock()
        self.is_loaded = False
        self.has_finished_requests = False
        try:
            self._connection.send(spec)
        except Exception:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: ToEngine) -> bool:
        """Send a message. False: the process has ended, which `receive` will report, and nothing was sent."""
        with self._sending:
            try:
                self._connection.send(message)
            except OSError:
                return False
        return True

    def receive(self, timeout_s: float) -> FromEngine | None:
        """The next message, None after `timeout_s`. Raises EOFError once the process has ended and all is read."""
        try:
            if not self._connection.poll(timeout_s):
                return None
            message: FromEngine = self._connection.recv()
        except OSError as error:
            raise EOFError from error
        self.is_loaded |= isinstance(message, Ready)
        self.has_finished_requests |= isinstance(message, Finished)
        return message

    def how_it_ended(self) -> str:
        """Continues a sentence that begins with "the engine". Kills a process that has closed its pipe and hangs."""
        status = self._exit_status() or 0
        return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Ask it to exit; kill it if it has not done so after five seconds."""
        self.send(Stop())
        self._exit_status()

    def _exit_status(self) -> int:
        try:
            return self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.returncode
