"""The engine in a process of its own: what it dies of takes nobody along.

`EngineProcess` is the parent's hand on it. Messages go through one pipe. The child drains it in a thread, so the
parent's sends never wait for a step to end; it ends when the pipe closes, and with the parent, whatever kills it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import resource
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

from docmill.broker.child_processes import die_with_parent
from docmill.engine_table import GPU_ENGINES
from docmill.worker.engines.base import (
    Completion,
    Engine,
    EngineError,
    EngineFacts,
    Request,
    RequestId,
    RequestRefused,
)
from docmill.worker.engines.registry import load_engine
from docmill.worker.engines.spec import EngineSpec
from docmill.worker.tailed_requests import Watch, Watched, Written
from docmill.worker.telemetry.energy import EnergyShares
from docmill.worker.telemetry.gpu_meter import open_gpu_meter

_BEAT_S = 1.0
_STOP_S = 5.0
_PROBE = (1,) * 8  # any model has these tokens
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # getrusage(2)


@dataclass(frozen=True, slots=True)
class Add:
    """To the engine: take this request."""

    request: Request


@dataclass(frozen=True, slots=True)
class Cancel:
    """To the engine: drop this request."""

    request_id: RequestId


@dataclass(frozen=True, slots=True)
class Stop:
    """To the engine: end."""


@dataclass(frozen=True, slots=True)
class Ready:
    """From the engine: the model is loaded and has written a token."""

    facts: EngineFacts


@dataclass(frozen=True, slots=True)
class Unusable:
    """From the engine: the model cannot be loaded; the process ends."""

    reason: str


@dataclass(frozen=True, slots=True)
class Finished:
    """From the engine."""

    completions: list[Completion]


@dataclass(frozen=True, slots=True)
class Refused:
    """From the engine: this request can never run."""

    request_id: RequestId
    error: RequestRefused


@dataclass(frozen=True, slots=True)
class Failed:
    """From the engine: it raised, and ends."""

    reason: str


@dataclass(frozen=True, slots=True)
class Beat:
    """From the engine: a step has ended."""


ToEngine = Add | Cancel | Watch | Stop
FromEngine = Ready | Unusable | Finished | Refused | Failed | Written | Beat


class EngineProcess:
    """A running engine process. The thread that makes it must outlive it."""

    def __init__(self, spec: EngineSpec) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_main, args=(theirs, spec), name="engine", daemon=True)
        self._process.start()
        theirs.close()
        self._sending = threading.Lock()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid or 0

    def send(self, message: ToEngine) -> bool:
        """Send a message. False: the process has ended, as `receive` will show, and nothing was sent."""
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
        return message

    def how_it_ended(self) -> str:
        """Why the process is no more, in words."""
        self._process.join(_STOP_S)
        if self._process.is_alive():
            self.kill()  # it has closed its end and hangs: the next one needs its memory
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with status {code}"

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.join()

    def stop(self) -> None:
        """Ask it to end; kill it when it does not."""
        self.send(Stop())
        self._process.join(_STOP_S)
        if self._process.is_alive():
            self.kill()


def _main(connection: Connection[FromEngine, ToEngine], spec: EngineSpec) -> None:
    die_with_parent(signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the worker says when to end
    with contextlib.suppress(BrokenPipeError):
        try:
            engine = load_engine(spec)
            _probe(engine)
        except EngineError as error:
            connection.send(Unusable(str(error)))
            return
        connection.send(Ready(engine.facts))
        try:
            _serve(engine, connection)
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent is told
            traceback.print_exc()
            connection.send(Failed(str(error) or type(error).__name__))
            sys.exit(1)


def _serve(engine: Engine, connection: Connection[FromEngine, ToEngine]) -> None:
    inbox: queue.SimpleQueue[ToEngine] = queue.SimpleQueue()
    threading.Thread(target=_drain, args=(connection, inbox), daemon=True).start()
    said_at = 0.0
    watched = Watched()
    shares = _energy_shares(engine.facts)
    while True:
        while not engine.in_flight or not inbox.empty():
            message = inbox.get()
            if isinstance(message, Stop):
                engine.close()
                return
            if isinstance(message, Watch):
                watched.add(message, time.monotonic())
            else:
                _take(engine, message, connection)
        shares.look(time.monotonic(), min(engine.in_flight, engine.facts.slots))
        completions = engine.step()
        now = time.monotonic()
        for written in watched.news(engine, now):
            connection.send(written)
        if completions:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
            shares.look(now, min(engine.in_flight, engine.facts.slots))
            connection.send(Finished([_measured(done, peak, shares, now) for done in completions]))
            said_at = now
        elif now - said_at > _BEAT_S:
            connection.send(Beat())
            said_at = now


def _measured(done: Completion, peak_bytes: int, shares: EnergyShares, now: float) -> Completion:
    """With what only the process knows: its memory, and the energy of the GPUs while this request ran."""
    energy_j = shares.share_j(now - done.decode_s - done.prefill_s, now)
    return replace(done, peak_memory_bytes=done.peak_memory_bytes or peak_bytes, energy_j=energy_j)


def _energy_shares(facts: EngineFacts) -> EnergyShares:
    meter = open_gpu_meter() if facts.engine in GPU_ENGINES else None
    return EnergyShares(meter.energy_j if meter else lambda: None)


def _take(engine: Engine, message: Add | Cancel, connection: Connection[FromEngine, ToEngine]) -> None:
    match message:
        case Add(request):
            try:
                engine.add(request)
            except RequestRefused as error:
                connection.send(Refused(request.id, error))
        case Cancel(request_id):
            engine.cancel(request_id)


def _drain(connection: Connection[FromEngine, ToEngine], inbox: queue.SimpleQueue[ToEngine]) -> None:
    try:
        while True:
            inbox.put(connection.recv())
    except (EOFError, OSError):
        inbox.put(Stop())


def _probe(engine: Engine) -> None:
    """Write one token: an engine that cannot even do this must not be blamed on the jobs."""
    engine.add(Request("probe", _PROBE, max_tokens=1))
    while not engine.step():
        pass
