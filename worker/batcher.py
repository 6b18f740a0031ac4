"""Many threads, one engine process: each hands in a request and waits for its text.

When the process dies, what was in it is suspect: each suspect runs again with the engine to itself, and the one
that is alone in it when it dies again was the cause. Everybody else only waits. Nobody waits for ever: whatever
ends the batcher ends every wait with an error.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from docmill.worker.engine_process import (
    Add,
    Cancel,
    EngineProcess,
    Failed,
    Finished,
    FromEngine,
    Ready,
    Refused,
    Unusable,
)
from docmill.worker.engines.base import (
    Completion,
    EngineClosed,
    EngineDied,
    EngineError,
    EngineFacts,
    EngineFailed,
    ModelUnusable,
    Request,
    RequestCancelled,
    RequestId,
)
from docmill.worker.engines.spec import EngineSpec
from docmill.worker.tailed_requests import Watch, Written

log = logging.getLogger(__name__)
_LOADS = 3  # deaths in a row while loading before the engine is given up
_AGAIN_S = 1.0  # before an engine that died without finishing anything is started again; doubles to a minute
_AGAIN_MAX_S = 60.0
_POLL_S = 0.5


@dataclass(slots=True, eq=False)
class _Ticket:
    request: Request
    future: Future[Completion] = field(default_factory=Future)

    def settle(self, outcome: Completion | EngineError) -> None:
        if isinstance(outcome, Completion):
            self.future.set_result(outcome)
        else:
            self.future.set_exception(outcome)


class Batcher:
    """The worker's engine. A step that takes longer than `stall_s` seconds is a death, and so is loading longer than
    `load_s`: the first time a large model may have to be converted."""

    def __init__(self, spec: EngineSpec, *, stall_s: float = 600.0, load_s: float = 7200.0) -> None:
        self._spec = spec
        self._stall_s = stall_s
        self._load_s = load_s
        self._lock = threading.RLock()
        self._process: EngineProcess | None = None
        self._facts: Future[EngineFacts] = Future()
        self._loaded = False
        self._pending: deque[_Ticket] = deque()
        self._suspects: deque[_Ticket] = deque()
        self._active: dict[RequestId, _Ticket] = {}
        self._alone = False
        self._closed: EngineError | None = None
        self._closing = threading.Event()
        self._has_finished = False
        self._fatal: EngineError | None = None
        self._on_fatal: Callable[[], None] | None = None
        self._on_written: Callable[[Written], None] | None = None
        self.deaths = 0  # of engine processes
        self._thread = threading.Thread(target=self._supervise, name="engine", daemon=True)

    def start(self) -> EngineFacts:
        """Load the model and return what the engine says of itself. Raises ModelUnusable or EngineDied.

        EngineClosed when `close` came first.
        """
        self._thread.start()
        return self._facts.result()

    def on_fatal(self, callback: Callable[[], None]) -> None:
        """Call this, once, when the engine cannot be brought back."""
        with self._lock:
            self._on_fatal = callback
            late = self._fatal is not None
        if late:
            callback()

    def on_written(self, callback: Callable[[Written], None]) -> None:
        """Call this with what watched requests write. It must return at once."""
        self._on_written = callback

    def watch(self, request_id: RequestId, have: int) -> None:
        """For some seconds tell what the request writes behind its first `have` characters; unknown ids are ignored."""
        with self._lock:
            if request_id in self._active and self._process is not None:
                self._process.send(Watch(request_id, have))

    def raise_if_fatal(self) -> None:
        """Raise what the engine cannot be brought back from."""
        if self._fatal is not None:
            raise self._fatal

    @property
    def is_closed(self) -> bool:
        """Whether no request will be taken any more."""
        return self._closed is not None

    @property
    def in_flight(self) -> int:
        """Requests that wait or run."""
        with self._lock:
            return len(self._pending) + len(self._suspects) + len(self._active)

    @property
    def engine_pid(self) -> int | None:
        """The engine process now, None while there is none."""
        with self._lock:
            return self._process.pid if self._process else None

    def generate(self, request: Request) -> Completion:
        """Run one request to its end. Raises EngineError: of the request's own, or EngineClosed, which is not."""
        ticket = _Ticket(request)
        with self._lock:
            if self._closed is not None:
                raise EngineClosed(str(self._closed))
            self._pending.append(ticket)
            self._feed()
        return ticket.future.result()

    def cancel(self, request_id: RequestId) -> None:
        """End a request's wait with RequestCancelled, and its work; unknown ids are ignored."""
        with self._lock:
            for waiting in (self._pending, self._suspects):
                for ticket in [t for t in waiting if t.request.id == request_id]:
                    waiting.remove(ticket)
                    ticket.settle(RequestCancelled("cancelled while it waited for the engine"))
            running = self._active.pop(request_id, None)
            if running is not None:
                if self._process is not None:
                    self._process.send(Cancel(request_id))
                running.settle(RequestCancelled("cancelled while it ran"))
            self._feed()

    def close(self) -> None:
        """End the engine; every wait ends with EngineClosed. Calling it again does nothing."""
        self._end(EngineClosed("the worker is shutting down"))
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def _supervise(self) -> None:
        """Keep an engine process running until the batcher is closed."""
        deaths_in_a_row = fruitless = 0
        try:
            while self._closed is None:
                process = EngineProcess(self._spec)
                with self._lock:
                    self._process, self._loaded, self._has_finished = process, False, False
                reason = self._run(process)
                if self._closed is not None:
                    break
                self._bury(reason)
                deaths_in_a_row = 0 if self._loaded else deaths_in_a_row + 1
                if deaths_in_a_row >= _LOADS:
                    name = self._spec.model.name
                    self._give_up(EngineDied(f"the engine {reason} {_LOADS} times while loading {name}"))
                fruitless = 0 if self._has_finished else fruitless + 1
                if fruitless > _LOADS:
                    self._closing.wait(min(_AGAIN_MAX_S, _AGAIN_S * 2 ** (fruitless - _LOADS)))
        except EngineError as error:
            self._give_up(error)
        except Exception as error:
            log.exception("the engine's supervisor failed")
            self._give_up(EngineDied(f"the engine's supervisor failed: {error}"))
        finally:
            if self._process is not None:
                self._process.stop()
            if not self._facts.done():
                self._facts.set_exception(EngineClosed("closed while the model was loading"))

    def _run(self, process: EngineProcess) -> str:
        """Hand out what the process says until it ends; returns how it did."""
        heard_at = time.monotonic()  # or when it last had nothing to say
        failed = ""
        while self._closed is None:
            try:
                message = process.receive(_POLL_S)
            except EOFError:
                return failed or process.how_it_ended()
            if message is not None:
                heard_at = time.monotonic()
                if isinstance(message, Failed):
                    failed = f"raised: {message.reason}"
                else:
                    self._hear(message)
            elif (limit_s := self._limit_s()) is None:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > limit_s:
                process.kill()
                doing = "finish a step" if self._loaded else "load"
                return f"did not {doing} in {limit_s:g} s and was killed"
        return "was stopped"

    def _limit_s(self) -> float | None:
        """How long the process may say nothing now; None: it is idle."""
        with self._lock:
            if not self._loaded:
                return self._load_s
            return self._stall_s if self._active else None

    def _hear(self, message: FromEngine) -> None:
        with self._lock:
            match message:
                case Ready(facts):
                    self._loaded = True
                    if not self._facts.done():
                        self._facts.set_result(facts)
                case Unusable(reason):
                    raise ModelUnusable(reason)
                case Finished(completions):
                    self._has_finished = True
                    for completion in completions:
                        self._settle(completion.request_id, completion)
                case Refused(request_id, error):
                    self._settle(request_id, error)
                case Written() if self._on_written is not None:
                    self._on_written(message)
            self._feed()

    def _settle(self, request_id: RequestId, outcome: Completion | EngineError) -> None:
        ticket = self._active.pop(request_id, None)
        if ticket is not None:  # None: cancelled meanwhile
            ticket.settle(outcome)

    def _feed(self) -> None:
        """Hand over what may run now: a suspect only when nothing else does."""
        if self._process is None or not self._loaded:
            return
        if self._alone and self._active:
            return
        self._alone = bool(self._suspects)
        if self._alone:
            if not self._active:
                self._hand_over(self._suspects, self._process)
            return
        while self._pending and self._hand_over(self._pending, self._process):
            pass

    def _hand_over(self, waiting: deque[_Ticket], process: EngineProcess) -> bool:
        """Hand over the first that waits. False: the process has ended, and nobody is to blame for that."""
        request = waiting[0].request
        if not process.send(Add(request)):
            return False
        self._active[request.id] = waiting.popleft()
        return True

    def _bury(self, reason: str) -> None:
        """The process is dead: blame the request that was alone in it, or suspect all that were."""
        with self._lock:
            self._process = None
            self.deaths += 1
            held = list(self._active.values())
            self._active.clear()
            log.warning("the engine %s with %d requests in it; starting it again", reason, len(held))
            if len(held) == 1:
                kind = EngineFailed if reason.startswith("raised") else EngineDied
                held[0].settle(kind(f"the engine {reason} while this request was alone in it"))
            else:
                self._suspects.extend(held)
            self._alone = False

    def _give_up(self, error: EngineError) -> None:
        with self._lock:
            self._fatal = error
        self._end(EngineClosed(str(error)))
        if not self._facts.done():
            self._facts.set_exception(error)
            return
        with self._lock:
            callback = self._on_fatal
        if callback is not None:
            callback()

    def _end(self, error: EngineError) -> None:
        with self._lock:
            if self._closed is not None:
                return
            self._closed = error
            self._closing.set()
            tickets = [*self._pending, *self._suspects, *self._active.values()]
            for waiting in (self._pending, self._suspects, self._active):
                waiting.clear()
        for ticket in tickets:
            ticket.settle(EngineClosed(str(error)))
