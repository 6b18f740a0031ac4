"""The engine around a generator with a paged KV cache, which exllamav2 and exllamav3 share.

The dynamic generators of both packages take jobs (`enqueue`), advance all of them by one step (`iterate`) and drop
them (`cancel`); their results are dictionaries with the same keys. The packages' own async wrappers are not used: when
a step raises, later jobs wait forever. Here the exception leaves `step` and ends the engine process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from docmill.worker.engines.base import Completion, EngineFacts, EngineFailed, FinishReason, Request
from docmill.worker.engines.queueing_engine import QueuedRequest, QueueingEngine

PAGE_TOKENS = 256
_OVERTAKEN_MAX = 8  # times that the oldest request may be overtaken by one whose beginning is in the cache


class Generator(Protocol):
    """The part of `ExLlamaV2DynamicGenerator` and exllamav3's `Generator` that is used, by one thread."""

    def enqueue(self, job: Any) -> Any: ...
    def iterate(self) -> list[dict[str, Any]]: ...
    def cancel(self, job: Any) -> None: ...


@dataclass(slots=True, eq=False)
class _PagedRequest(QueuedRequest):
    job: Any = None  # the generator's
    overtaken: int = 0
    is_prefilled: bool = False
    text: list[str] = field(default_factory=list)

    def shared_pages(self, other: _PagedRequest) -> int:
        """Whole pages that both prompts begin with, without the last token: it is always computed."""
        mine, theirs = self.request.prompt_ids, other.request.prompt_ids
        pages = 0
        while (end := (pages + 1) * PAGE_TOKENS) < min(len(mine), len(theirs)):
            if mine[end - PAGE_TOKENS : end] != theirs[end - PAGE_TOKENS : end]:
                break
            pages += 1
        return pages


class PagedEngine(QueueingEngine[_PagedRequest]):
    """Only running jobs are in the generator; waiting requests stay in our queue, so that their order is ours.

    `make_job` turns a request into the generator's job, with the request's id as its identifier; `peak_bytes` returns
    the most GPU memory that has been allocated; `unload` frees the model.
    """

    _request_type = _PagedRequest

    def __init__(
        self,
        facts: EngineFacts,
        generator: Generator,
        make_job: Callable[[Request], Any],
        *,
        peak_bytes: Callable[[], int],
        unload: Callable[[], None],
    ) -> None:
        super().__init__(facts)
        self._generator = generator
        self._make_job = make_job
        self._peak_bytes = peak_bytes
        self._unload: Callable[[], None] | None = unload
        self._last_started: _PagedRequest | None = None

    def close(self) -> None:
        super().close()
        unload, self._unload = self._unload, None
        if unload is not None:
            unload()

    def _next_to_start(self) -> _PagedRequest | None:
        """The request that shares the most pages with the one started last.

        It waits while a running request still computes pages that it could share.
        """
        oldest = super()._next_to_start()
        if oldest is None:
            return None
        chosen = oldest
        last = self._last_started
        if last is not None and oldest.overtaken < _OVERTAKEN_MAX:
            chosen = max(self._waiting, key=lambda waiting: waiting.shared_pages(last))  # the oldest of equals
        if any(not running.is_prefilled and running.shared_pages(chosen) for running in self._running.values()):
            return None
        if chosen is not oldest:
            oldest.overtaken += 1
        return chosen

    def _start(self, queued: _PagedRequest) -> None:
        queued.job = self._make_job(queued.request)
        self._generator.enqueue(queued.job)
        self._last_started = queued

    def _advance(self) -> list[Completion]:
        completions = [self._handle(result) for result in self._generator.iterate()]
        return [completion for completion in completions if completion is not None]

    def _abort(self, running: _PagedRequest) -> None:
        self._generator.cancel(running.job)

    def _text(self, running: _PagedRequest) -> str:
        return "".join(running.text)

    def _handle(self, result: dict[str, Any]) -> Completion | None:
        """Note one result of the generator; the completion if it was the request's last."""
        if result["stage"] == "error":
            raise EngineFailed(f"the generator failed on a request: {result.get('error') or result}")
        running = self._running.get(result.get("identifier", ""))
        if running is None or result["stage"] != "streaming":
            return None
        running.is_prefilled = True
        running.text.append(result.get("text", ""))
        return self._completion(running, result) if result["eos"] else None

    def _completion(self, running: _PagedRequest, result: dict[str, Any]) -> Completion:
        reason, text = result["eos_reason"], result["full_completion"]
        if reason == "stop_token":  # what was held back as the beginning of a stop string is text after all
            held = result.get("held", {}).get("text", "")
            text += held.removesuffix(result["eos_triggering_token_str"])
        finish_reason = FinishReason.LENGTH if reason == "max_new_tokens" else FinishReason.STOP
        return replace(
            running.completion(text, finish_reason, result["new_tokens"]),
            cached_tokens=result["cached_tokens"],
            queue_s=running.started_at - running.queued_at + result["time_enqueued"],
            prefill_s=result["time_prefill"],
            decode_s=result["time_generate"],
            peak_vram_bytes=self._peak_bytes(),
        )
