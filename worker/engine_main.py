"""What runs in the engine process: load the model, then take requests and step the engine until told to stop.

A thread reads the pipe, so that the worker's sends never wait for a step to end.
"""

from __future__ import annotations

import contextlib
import queue
import resource
import signal
import sys
import threading
import time
import traceback
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from docmill.broker.child_processes import die_with_parent
from docmill.engine_table import GPU_ENGINES
from docmill.worker.engine_messages import (
    Add,
    Cancel,
    Failed,
    Finished,
    FromEngine,
    Heartbeat,
    Ready,
    Refused,
    Stop,
    ToEngine,
    Unusable,
    WatchText,
)
from docmill.worker.engines.base import Completion, Engine, EngineError, Request, RequestRefused
from docmill.worker.engines.load_engine import load_engine
from docmill.worker.engines.spec import EngineSpec
from docmill.worker.tailed_requests import TailedRequests
from docmill.worker.telemetry.energy import EnergyShares
from docmill.worker.telemetry.gpu_meter import open_gpu_meter

_HEARTBEAT_S = 1.0
_PROBE = (1,) * 8  # token ids that every model has
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes; see getrusage(2)


def main() -> None:
    """Entry point. The only argument is the file descriptor of the pipe, whose first message is the `EngineSpec`."""
    die_with_parent(signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the worker decides when to stop
    connection: Connection[Any, Any] = Connection(int(sys.argv[1]))
    with contextlib.suppress(EOFError, BrokenPipeError):  # the worker has gone
        run_engine(connection.recv(), connection)


def run_engine(spec: EngineSpec, connection: Connection[FromEngine, ToEngine]) -> None:
    """Load the model and serve requests until the worker says Stop or closes the pipe."""
    try:
        engine = load_engine(spec)
        _generate_one_token(engine)
    except EngineError as error:
        connection.send(Unusable(str(error)))
        return
    connection.send(Ready(engine.facts))
    try:
        _EngineLoop(engine, connection).run()
    except Exception as error:  # noqa: BLE001 - whatever it is, the worker must know
        traceback.print_exc()
        connection.send(Failed(str(error) or type(error).__name__))
        sys.exit(1)


def _generate_one_token(engine: Engine) -> None:
    """An engine that fails even here must not fail jobs later."""
    engine.add(Request("probe", _PROBE, max_tokens=1))
    while not engine.step():
        pass


class _EngineLoop:
    def __init__(self, engine: Engine, connection: Connection[FromEngine, ToEngine]) -> None:
        self._engine = engine
        self._connection = connection
        self._inbox: queue.SimpleQueue[ToEngine] = queue.SimpleQueue()
        self._tailed = TailedRequests()
        meter = open_gpu_meter() if engine.facts.engine in GPU_ENGINES else None
        self._energy = EnergyShares(meter.energy_j if meter else lambda: None)
        self._sent_at = 0.0

    def run(self) -> None:
        """Take messages and step the engine until Stop."""
        threading.Thread(target=self._read, daemon=True).start()
        while self._take_messages():
            self._measure_energy()
            completions = self._engine.step()
            for text in self._tailed.new_text(self._engine, time.monotonic()):
                self._connection.send(text)
            if completions:
                self._send_finished(completions)
            elif time.monotonic() - self._sent_at > _HEARTBEAT_S:
                self._connection.send(Heartbeat())
                self._sent_at = time.monotonic()
        self._engine.close()

    def _read(self) -> None:
        """In a thread of its own: move messages from the pipe to the inbox."""
        try:
            while True:
                self._inbox.put(self._connection.recv())
        except (EOFError, OSError):
            self._inbox.put(Stop())

    def _take_messages(self) -> bool:
        """Act on all messages that have arrived; while the engine is idle, wait for the next. False: Stop was one."""
        while not self._engine.in_flight or not self._inbox.empty():
            match self._inbox.get():
                case Add(request):
                    try:
                        self._engine.add(request)
                    except RequestRefused as error:
                        self._connection.send(Refused(request.id, error))
                case Cancel(request_id):
                    self._engine.cancel(request_id)
                case WatchText() as message:
                    self._tailed.watch(message, time.monotonic())
                case Stop():
                    return False
        return True

    def _send_finished(self, completions: list[Completion]) -> None:
        """Add what is measured for the whole process: its peak memory, and each request's share of the GPUs' energy."""
        self._measure_energy()
        now = self._sent_at = time.monotonic()
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
        measured = [
            replace(
                completion,
                peak_memory_bytes=completion.peak_memory_bytes or peak_bytes,
                energy_j=self._energy.share_j(now - completion.decode_s - completion.prefill_s, now),
            )
            for completion in completions
        ]
        self._connection.send(Finished(measured))

    def _measure_energy(self) -> None:
        self._energy.measure(time.monotonic(), min(self._engine.in_flight, self._engine.facts.slots))


if __name__ == "__main__":
    main()
