"""Keep the worker's engine process running: start it, kill it if it hangs, restart it after a crash.

`docmill.worker.crash_and_retry_policy` decides how soon it is restarted and when it is given up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

from docmill.worker.crash_and_retry_policy import RestartPolicy
from docmill.worker.engine_messages import Failed, FromEngine, ToEngine, Unusable
from docmill.worker.engine_process import EngineProcess
from docmill.worker.engines.base import EngineDied, ModelUnusable
from docmill.worker.engines.spec import EngineSpec

_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Crashed:
    """The engine process has ended unexpectedly. `reason` continues a sentence that begins with "the engine"."""

    reason: str
    has_raised: bool = False  # an exception in Python, rather than the death or a hang of the process


class EngineSupervisor:
    """One engine process after the other, run by the thread that iterates over `events`.

    A process is killed if loading takes longer than `load_s` seconds, or a step longer than `stall_s`. `is_busy`
    returns True while the engine has requests: an idle engine sends nothing and is not considered to hang.
    """

    def __init__(self, spec: EngineSpec, *, is_busy: Callable[[], bool], load_s: float, stall_s: float) -> None:
        self._spec = spec
        self._is_busy = is_busy
        self._load_s = load_s
        self._stall_s = stall_s
        self._stopping = threading.Event()
        self._process: EngineProcess | None = None
        self.crashes = 0

    @property
    def pid(self) -> int | None:
        """The process id of the engine, None while none is running."""
        process = self._process
        return process.pid if process else None

    def send(self, message: ToEngine) -> bool:
        """Send a message to the engine. False if no engine is ready for it."""
        process = self._process
        return process is not None and process.is_loaded and process.send(message)

    def stop(self) -> None:
        """Let `events` end, and the engine process with it, within seconds."""
        self._stopping.set()

    def events(self) -> Generator[FromEngine | Crashed, None, None]:
        """Run engine processes until `stop` is called; yield their messages and crashes.

        Raises ModelUnusable if the engine cannot load the model, EngineDied if it crashes repeatedly while loading.
        """
        restarts = RestartPolicy()
        while not self._stopping.is_set():
            process = self._process = EngineProcess(self._spec)
            try:
                crash = yield from self._messages(process)
            finally:
                self._process = None
                process.stop()
            if crash is None:
                return
            self.crashes += 1
            yield crash
            delay_s = restarts.delay_after_crash(
                was_loaded=process.is_loaded, had_results=process.has_finished_requests
            )
            if delay_s is None:
                times, model = restarts.CRASHES_WHILE_LOADING_MAX, self._spec.model.name
                raise EngineDied(f"the engine {crash.reason} {times} times while loading {model}")
            if delay_s:
                self._stopping.wait(delay_s)

    def _messages(self, process: EngineProcess) -> Generator[FromEngine, None, Crashed | None]:
        """Yield what a process sends until it ends; return how it crashed, None if it is to be stopped."""
        failure: Crashed | None = None
        silent_since = time.monotonic()
        while not self._stopping.is_set():
            try:
                message = process.receive(_POLL_S)
            except EOFError:
                return failure or Crashed(process.how_it_ended())
            limit_s = self._stall_s if process.is_loaded else self._load_s
            if message is not None or (process.is_loaded and not self._is_busy()):
                silent_since = time.monotonic()
            elif time.monotonic() - silent_since > limit_s:
                process.kill()
                doing = "finish a step" if process.is_loaded else "load"
                return Crashed(f"did not {doing} in {limit_s:g} s and was killed")
            match message:
                case None:
                    continue
                case Failed(reason):
                    failure = Crashed(f"raised: {reason}", has_raised=True)
                case Unusable(reason):
                    raise ModelUnusable(reason)
                case _:
                    yield message
        return None
