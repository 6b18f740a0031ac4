"""The engine loop over a paged generator: what exllamav2 and exllamav3 share.

Both packages' dynamic generators take jobs (`enqueue`), do one step for all of them (`iterate`) and drop them
(`cancel`); their results are dictionaries with the same keys. Their own async wrappers leave later jobs waiting for
ever when a step raises, so the loop is ours: an exception leaves `step`, and the engine process ends by it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from docmill.worker.engines.base import (
    Completion,
    EngineFacts,
    EngineFailed,
    FinishReason,
    Request,
    RequestId,
    check_fits,
    cut_at_stop,
    shown_text,
)

PAGE_TOKENS = 256
_SKIPS = 8  # times that a request may be overtaken by one whose beginning is in the cache


class Generator(Protocol):
    """The part of `ExLlamaV2DynamicGenerator` and exllamav3's `Generator` that is used. One thread owns it."""

    def enqueue(self, job: Any) -> Any: ...
    def iterate(self) -> list[dict[str, Any]]: ...
    def cancel(self, job: Any) -> None: ...


@dataclass(slots=True, eq=False)
class _Running:
    request: Request
    taken_at: float
    skipped: int = 0
    given_at: float = 0.0
    job: Any = None
    is_prefilled: bool = False
    beside: list[int] = field(default_factory=list)
    text: list[str] = field(default_factory=list)

    def shared_pages(self, other: _Running) -> int:
        """Whole pages that both prompts begin with; the last token of a prompt is always computed."""
        mine, theirs = self.request.prompt_ids, other.request.prompt_ids
        pages = 0
        while (end := (pages + 1) * PAGE_TOKENS) < min(len(mine), len(theirs)):
            if mine[end - PAGE_TOKENS : end] != theirs[end - PAGE_TOKENS : end]:
                break
            pages += 1
        return pages


class PagedEngine:
    """Keeps at most `facts.slots` jobs in the generator; the others wait here, where their order is ours.

    `make_job` turns a request into the generator's own job, with the request's id as its identifier; `peak_bytes`
    says what the device had in use at most; `free` gives everything back.
    """

    def __init__(
        self,
        facts: EngineFacts,
        generator: Generator,
        make_job: Callable[[Request], Any],
        *,
        peak_bytes: Callable[[], int],
        free: Callable[[], None],
    ) -> None:
        self.facts = facts
        self._generator = generator
        self._make_job = make_job
        self._peak_bytes = peak_bytes
        self._free: Callable[[], None] | None = free
        self._waiting: deque[_Running] = deque()
        self._running: dict[RequestId, _Running] = {}
        self._last: _Running | None = None

    @property
    def in_flight(self) -> int:
        """Requests taken and not yet finished or cancelled."""
        return len(self._waiting) + len(self._running)

    def add(self, request: Request) -> None:
        """Take a request. Raises RequestRefused: the generator itself would read past its tables."""
        check_fits(request, self.facts.context_window)
        self._waiting.append(_Running(request, time.monotonic()))

    def step(self) -> list[Completion]:
        """One iteration of the generator over everything that runs; returns what has finished."""
        while len(self._running) < self.facts.slots and (chosen := self._next()) is not None:
            self._start(chosen)
        if not self._running:
            return []
        for running in self._running.values():
            running.beside.append(len(self._running))
        finished = [self._hear(result) for result in self._generator.iterate()]
        return [completion for completion in finished if completion is not None]

    def cancel(self, request_id: RequestId) -> None:
        """Stop a request without a completion; unknown ids are ignored."""
        self._waiting = deque(r for r in self._waiting if r.request.id != request_id)
        running = self._running.pop(request_id, None)
        if running is not None:
            self._generator.cancel(running.job)

    def text_so_far(self, request_id: RequestId) -> str | None:
        """What a request has written, None for unknown ids."""
        running = self._running.get(request_id)
        if running is None:
            return "" if any(waiting.request.id == request_id for waiting in self._waiting) else None
        return shown_text("".join(running.text), running.request.sampling.stop)

    def close(self) -> None:
        """Free the model."""
        self._waiting.clear()
        self._running.clear()
        free, self._free = self._free, None
        if free is not None:
            free()

    def _next(self) -> _Running | None:
        """The request to start: the one that shares the longest beginning with the last, where pages are shared.

        While a prompt with the same beginning is being read, one waits for its pages rather than read them too.
        """
        if not self._waiting:
            return None
        oldest = self._waiting[0]
        chosen = oldest
        if self._last is not None and oldest.skipped < _SKIPS:
            last = self._last
            chosen = max(self._waiting, key=lambda r: r.shared_pages(last))  # the oldest of equals
        if any(not r.is_prefilled and r.shared_pages(chosen) for r in self._running.values()):
            return None
        if chosen is not oldest:
            oldest.skipped += 1
        self._waiting.remove(chosen)
        return chosen

    def _start(self, running: _Running) -> None:
        running.given_at = time.monotonic()
        running.job = self._make_job(running.request)
        self._generator.enqueue(running.job)
        self._running[running.request.id] = running
        self._last = running

    def _hear(self, result: dict[str, Any]) -> Completion | None:
        if result["stage"] == "error":
            raise EngineFailed(f"the generator gave a request up: {result.get('error') or result}")
        running = self._running.get(result.get("identifier", ""))
        if running is None or result["stage"] != "streaming":
            return None
        running.is_prefilled = True
        running.text.append(result.get("text", ""))
        if not result["eos"]:
            return None
        del self._running[running.request.id]
        return self._completion(running, result)

    def _completion(self, running: _Running, result: dict[str, Any]) -> Completion:
        request, reason = running.request, result["eos_reason"]
        text = result["full_completion"]
        if reason == "stop_token":  # what was held back as the beginning of a stop string is text after all
            held = result.get("held", {}).get("text", "")
            text += held.removesuffix(result["eos_triggering_token_str"])
        return Completion(
            request_id=request.id,
            text=cut_at_stop(text, request.sampling.stop),
            finish_reason=FinishReason.LENGTH if reason == "max_new_tokens" else FinishReason.STOP,
            prompt_tokens=len(request.prompt_ids),
            completion_tokens=result["new_tokens"],
            cached_tokens=result["cached_tokens"],
            queue_s=running.given_at - running.taken_at + result["time_enqueued"],
            prefill_s=result["time_prefill"],
            decode_s=result["time_generate"],
            batch_size=sum(running.beside) / len(running.beside),
            peak_vram_bytes=self._peak_bytes(),
        )
