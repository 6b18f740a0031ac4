"""The requests that a worker's threads wait for: which wait, which are in the engine, which may have crashed it.

After a crash every request that was in the engine is a suspect. Suspects run again one at a time, each alone in the
engine; a request that is alone in the engine when it crashes is the cause and fails. All others only wait longer.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from docmill.worker.engine_messages import Add, Cancel, ToEngine
from docmill.worker.engine_supervisor import Crashed
from docmill.worker.engines.base import (
    Completion,
    EngineClosed,
    EngineDied,
    EngineError,
    EngineFailed,
    Request,
    RequestCancelled,
    RequestId,
)

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Ticket:
    request: Request
    outcome: Future[Completion] = field(default_factory=Future)


class RequestQueue:
    """Used by many threads at once. `send` sends a message to the engine and returns False if no engine is ready."""

    def __init__(self, send: Callable[[ToEngine], bool]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._pending: deque[_Ticket] = deque()
        self._suspects: deque[_Ticket] = deque()
        self._active: dict[RequestId, _Ticket] = {}
        self._suspect_is_active = False
        self._closed: EngineClosed | None = None

    @property
    def is_closed(self) -> bool:
        """True once requests are no longer accepted."""
        return self._closed is not None

    @property
    def is_active(self) -> bool:
        """True while the engine has requests."""
        return bool(self._active)

    def __len__(self) -> int:
        """The number of unfinished requests."""
        with self._lock:
            return len(self._pending) + len(self._suspects) + len(self._active)

    def add(self, request: Request) -> Future[Completion]:
        """Queue a request. Its outcome is a Completion or an EngineError. Raises EngineClosed after `close`."""
        ticket = _Ticket(request)
        with self._lock:
            if self._closed is not None:
                raise EngineClosed(str(self._closed))
            self._pending.append(ticket)
            self._send_runnable()
        return ticket.outcome

    def engine_is_ready(self) -> None:
        """Send the engine what may run."""
        with self._lock:
            self._send_runnable()

    def finish(self, request_id: RequestId, outcome: Completion | EngineError) -> None:
        """End a request that was in the engine; ignored if it has been cancelled since."""
        with self._lock:
            ticket = self._active.pop(request_id, None)
            if ticket is not None:
                if isinstance(outcome, Completion):
                    ticket.outcome.set_result(outcome)
                else:
                    ticket.outcome.set_exception(outcome)
            self._send_runnable()

    def cancel(self, request_id: RequestId) -> None:
        """End a request with RequestCancelled; unknown ids are ignored."""
        with self._lock:
            for waiting in (self._pending, self._suspects):
                for ticket in [ticket for ticket in waiting if ticket.request.id == request_id]:
                    waiting.remove(ticket)
                    ticket.outcome.set_exception(RequestCancelled("cancelled while it waited for the engine"))
            running = self._active.pop(request_id, None)
            if running is not None:
                self._send(Cancel(request_id))
                running.outcome.set_exception(RequestCancelled("cancelled while it ran"))
            self._send_runnable()

    def engine_crashed(self, crash: Crashed) -> None:
        """Fail the request that was alone in the engine; suspect the requests if there were several."""
        with self._lock:
            held = list(self._active.values())
            self._active.clear()
            self._suspect_is_active = False
            log.warning("the engine %s with %d requests in it; restarting it", crash.reason, len(held))
            if len(held) == 1:
                error = EngineFailed if crash.has_raised else EngineDied
                held[0].outcome.set_exception(error(f"the engine {crash.reason} while it ran only this request"))
            else:
                self._suspects.extend(held)

    def close(self, error: EngineClosed) -> None:
        """End all requests with this error and accept no more. Calling it again does nothing."""
        with self._lock:
            if self._closed is not None:
                return
            self._closed = error
            for ticket in (*self._pending, *self._suspects, *self._active.values()):
                ticket.outcome.set_exception(EngineClosed(str(error)))
            for tickets in (self._pending, self._suspects, self._active):
                tickets.clear()

    def _send_runnable(self) -> None:
        """Send what may run now: a suspect runs alone, and before everything that is pending."""
        if self._suspect_is_active and self._active:
            return
        self._suspect_is_active = bool(self._suspects)
        if self._suspects:
            self._send_first(self._suspects)
        else:
            while self._pending and self._send_first(self._pending):
                pass

    def _send_first(self, waiting: deque[_Ticket]) -> bool:
        """Send the first waiting request. False: no engine is ready, and the request keeps its place."""
        request = waiting[0].request
        if not self._send(Add(request)):
            return False
        self._active[request.id] = waiting.popleft()
        return True
