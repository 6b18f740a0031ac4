"""The worker's engine as its threads see it: many threads call `generate`, one engine process batches their requests.

`docmill.worker.request_queue` decides which requests run, `docmill.worker.engine_supervisor` keeps the engine process
running; the batcher connects the two. Whatever ends the batcher ends every wait with an error.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing

from docmill.worker.engine_messages import Finished, FromEngine, Ready, Refused, TextWritten, WatchText
from docmill.worker.engine_supervisor import Crashed, EngineSupervisor
from docmill.worker.engines.base import (
    Completion,
    EngineClosed,
    EngineDied,
    EngineError,
    EngineFacts,
    Request,
    RequestId,
)
from docmill.worker.engines.spec import EngineSpec
from docmill.worker.request_queue import RequestQueue

log = logging.getLogger(__name__)


class Batcher:
    """Generates text for many threads at once.

    A step of the engine that takes longer than `stall_s` seconds counts as a crash. So does loading the model for
    longer than `load_s` seconds, which includes converting it the first time.
    """

    def __init__(self, spec: EngineSpec, *, stall_s: float = 600.0, load_s: float = 7200.0) -> None:
        self._supervisor = EngineSupervisor(spec, is_busy=lambda: self._queue.is_active, load_s=load_s, stall_s=stall_s)
        self._queue = RequestQueue(self._supervisor.send)
        self._facts: Future[EngineFacts] = Future()
        self._fatal: Future[None] = Future()  # only ever gets an exception
        self._on_text: Callable[[TextWritten], None] = lambda _: None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> EngineFacts:
        """Load the model. Raises ModelUnusable or EngineDied, or EngineClosed if `close` was called first."""
        self._thread.start()
        return self._facts.result()

    def generate(self, request: Request) -> Completion:
        """Run one request to its end.

        Raises EngineClosed if the batcher is closed, another EngineError if the request itself fails.
        """
        return self._queue.add(request).result()

    def cancel(self, request_id: RequestId) -> None:
        """Stop a request; its `generate` raises RequestCancelled. Unknown ids are ignored."""
        self._queue.cancel(request_id)

    def close(self) -> None:
        """Stop the engine; every wait ends with EngineClosed. Calling it again does nothing."""
        self._queue.close(EngineClosed("the worker is shutting down"))
        self._supervisor.stop()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    @property
    def is_closed(self) -> bool:
        """True once requests are no longer accepted."""
        return self._queue.is_closed

    @property
    def in_flight(self) -> int:
        """The number of unfinished requests."""
        return len(self._queue)

    @property
    def engine_pid(self) -> int | None:
        """The id of the engine process, None while none is running."""
        return self._supervisor.pid

    @property
    def engine_crashes(self) -> int:
        """How often the engine process has crashed."""
        return self._supervisor.crashes

    def on_fatal(self, callback: Callable[[], None]) -> None:
        """Call this once when the engine cannot be restarted; at once if that has already happened."""
        self._fatal.add_done_callback(lambda _: callback())

    def raise_if_fatal(self) -> None:
        """Raise the error because of which the engine cannot be restarted, if there is one."""
        if self._fatal.done():
            self._fatal.result()

    def watch_text(self, request_id: RequestId, have: int) -> None:
        """For some seconds, pass what the request writes after its first `have` characters to `on_text`'s callback."""
        self._supervisor.send(WatchText(request_id, have))

    def on_text(self, callback: Callable[[TextWritten], None]) -> None:
        """Call this with the text of watched requests. It must return at once."""
        self._on_text = callback

    def _run(self) -> None:
        """In the engine thread: keep the engine running until the batcher is closed."""
        try:
            with closing(self._supervisor.events()) as events:
                for event in events:
                    self._handle(event)
        except EngineError as error:
            self._give_up(error)
        except Exception as error:
            log.exception("the engine's supervisor failed")
            self._give_up(EngineDied(f"the engine's supervisor failed: {error}"))
        if not self._facts.done():
            self._facts.set_exception(EngineClosed("closed while the model was loading"))

    def _handle(self, event: FromEngine | Crashed) -> None:
        match event:
            case Ready(facts):
                if not self._facts.done():  # it is set again after each restart
                    self._facts.set_result(facts)
                self._queue.engine_is_ready()
            case Finished(completions):
                for completion in completions:
                    self._queue.finish(completion.request_id, completion)
            case Refused(request_id, error):
                self._queue.finish(request_id, error)
            case TextWritten():
                self._on_text(event)
            case Crashed():
                self._queue.engine_crashed(event)

    def _give_up(self, error: EngineError) -> None:
        self._fatal.set_exception(error)
        self._queue.close(EngineClosed(str(error)))
        if not self._facts.done():
            self._facts.set_exception(error)
