"""What all engines share: requests wait in a queue, start when there is room for them, run together and finish."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from docmill.worker.engines.base import (
    Completion,
    EngineFacts,
    FinishReason,
    Request,
    RequestId,
    check_fits,
    cut_at_stop,
    shown_text,
)


@dataclass(slots=True, eq=False)
class QueuedRequest:
    """A request inside an engine. Times are readings of `time.monotonic`."""

    request: Request
    queued_at: float = field(default_factory=time.monotonic)
    started_at: float = 0.0
    first_token_at: float | None = None
    batch_sizes: list[int] = field(default_factory=list)  # of every step that it took part in

    def completion(self, text: str, finish_reason: FinishReason, completion_tokens: int) -> Completion:
        """The finished request, with times as seen from outside the engine's library."""
        now = time.monotonic()
        first_token_at = self.first_token_at or now
        return Completion(
            request_id=self.request.id,
            text=cut_at_stop(text, self.request.sampling.stop),
            finish_reason=finish_reason,
            prompt_tokens=len(self.request.prompt_ids),
            completion_tokens=completion_tokens,
            queue_s=self.started_at - self.queued_at,
            prefill_s=first_token_at - self.started_at,
            decode_s=now - first_token_at,
            batch_size=sum(self.batch_sizes) / max(1, len(self.batch_sizes)),
        )


R = TypeVar("R", bound=QueuedRequest)


class QueueingEngine(ABC, Generic[R]):
    """Implements the `Engine` protocol, apart from the calls into the engine's library.

    At most `facts.slots` requests run at once. The longest outputs that the running requests may have, together with
    their prompts, never exceed `kv_tokens`, so that the KV cache cannot overflow; None leaves this to the library.
    """

    _request_type: type[R]

    def __init__(self, facts: EngineFacts, *, kv_tokens: int | None = None) -> None:
        self.facts = facts
        self._kv_tokens = kv_tokens
        self._waiting: deque[R] = deque()
        self._running: dict[RequestId, R] = {}

    @property
    def in_flight(self) -> int:
        return len(self._waiting) + len(self._running)

    def add(self, request: Request) -> None:
        check_fits(request, self.facts.context_window)
        self._waiting.append(self._request_type(request))

    def step(self) -> list[Completion]:
        while (next_request := self._next_to_start()) is not None:
            self._waiting.remove(next_request)
            next_request.started_at = time.monotonic()
            self._start(next_request)
            self._running[next_request.request.id] = next_request
        if not self.in_flight:
            return []
        for running in self._running.values():
            running.batch_sizes.append(len(self._running))
        completions = self._advance()
        for completion in completions:
            del self._running[completion.request_id]
        return completions

    def cancel(self, request_id: RequestId) -> None:
        self._waiting = deque(waiting for waiting in self._waiting if waiting.request.id != request_id)
        running = self._running.pop(request_id, None)
        if running is not None:
            self._abort(running)

    def text_so_far(self, request_id: RequestId) -> str | None:
        running = self._running.get(request_id)
        if running is not None:
            return shown_text(self._text(running), running.request.sampling.stop)
        return "" if any(waiting.request.id == request_id for waiting in self._waiting) else None

    def close(self) -> None:
        self._waiting.clear()
        self._running.clear()

    def _next_to_start(self) -> R | None:
        """The waiting request to start now, None if it has to wait: first come, first served."""
        if not self._waiting:
            return None
        oldest, occupying = self._waiting[0], self._occupying()
        if len(occupying) >= self.facts.slots:
            return None
        if self._kv_tokens is not None:
            reserved = sum(running.request.most_tokens for running in occupying)
            if reserved + oldest.request.most_tokens > self._kv_tokens:
                return None
        return oldest

    def _occupying(self) -> Collection[R]:
        """The requests that take a slot and a part of the KV cache."""
        return self._running.values()

    @abstractmethod
    def _start(self, queued: R) -> None:
        """Give a request to the library."""

    @abstractmethod
    def _advance(self) -> list[Completion]:
        """Let the library work for at most about a second; return what has finished."""

    @abstractmethod
    def _abort(self, running: R) -> None:
        """Stop a running request."""

    @abstractmethod
    def _text(self, running: R) -> str:
        """All text that a running request has written so far."""
