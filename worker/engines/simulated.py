"""An engine without a model: seeded words at given rates, for load tests and for tests of everything around it.

Never chosen by itself: ask for `--engine simulated` or the model `simulated`. A step takes the time that a device of
these rates would: prefill is shared by all prompts, decoding gives every running request one token.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

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
from docmill.worker.engines.spec import EngineSpec

_WORDS = (
    "paper", "river", "naïve", "stone", "letter", "winter", "東京", "harbour", "copper", "glass", "café", "engine",
    "garden", "market", "Привет", "mountain", "signal", "thread", "👩‍🚀", "window",
)  # fmt: skip


@dataclass(slots=True)
class _Running:
    request: Request
    taken_at: float
    words: list[str] = field(default_factory=list)
    length: int = 0
    written: int = 0
    prefilled: int = 0
    started_at: float = 0.0
    first_at: float | None = None
    beside: list[int] = field(default_factory=list)


class SimulatedEngine:
    """Options: `prefill_tokens_per_s`, `decode_steps_per_s`; `die_on` and `raise_on`, token ids: a prompt that holds
    them in a row kills the process, or makes the engine raise (`raise_message`), as a broken kernel would; `words` to
    write, and `wordiness`, which makes answers longer than they may be."""

    def __init__(self, spec: EngineSpec) -> None:
        self.facts = EngineFacts("simulated", spec.model.name, spec.window, spec.slots, "simulated-1")
        self._prefill_rate = float(spec.options.get("prefill_tokens_per_s", 200_000))
        self._decode_rate = float(spec.options.get("decode_steps_per_s", 2_000))
        self._die_on = tuple(spec.options.get("die_on", ()))
        self._raise_on = tuple(spec.options.get("raise_on", ()))
        self._raise_message = str(spec.options.get("raise_message", "the simulated engine was asked to raise"))
        self._words = tuple(spec.options.get("words", _WORDS))
        self._wordiness = float(spec.options.get("wordiness", 1.0))
        self._waiting: deque[_Running] = deque()
        self._running: dict[RequestId, _Running] = {}

    @property
    def in_flight(self) -> int:
        """Requests taken and not yet finished or cancelled."""
        return len(self._waiting) + len(self._running)

    def add(self, request: Request) -> None:
        """Take a request. Raises RequestRefused."""
        check_fits(request, self.facts.context_window)
        self._waiting.append(_Running(request, time.monotonic()))

    def step(self) -> list[Completion]:
        """Prefill what is new, write one token of everything that runs."""
        while self._waiting and len(self._running) < self.facts.slots:
            self._start(self._waiting.popleft())
        if not self._running:
            return []
        new = [running for running in self._running.values() if running.first_at is None]
        prefill_s = sum(len(running.request.prompt_ids) for running in new) / self._prefill_rate
        time.sleep(prefill_s + 1 / self._decode_rate)
        for running in self._running.values():
            running.first_at = running.first_at or time.monotonic()
            running.written += 1
            running.beside.append(len(self._running))
        finished = [r for r in self._running.values() if r.written >= r.length]
        for running in finished:
            del self._running[running.request.id]
        return [_completion(running) for running in finished]

    def cancel(self, request_id: RequestId) -> None:
        """Stop a request without a completion; unknown ids are ignored."""
        self._waiting = deque(r for r in self._waiting if r.request.id != request_id)
        self._running.pop(request_id, None)

    def text_so_far(self, request_id: RequestId) -> str | None:
        """What a request has written, None for unknown ids."""
        running = self._running.get(request_id)
        if running is None:
            return "" if any(waiting.request.id == request_id for waiting in self._waiting) else None
        return shown_text(" ".join(running.words[: running.written]), running.request.sampling.stop)

    def close(self) -> None:
        """Forget everything."""
        self._waiting.clear()
        self._running.clear()

    def _start(self, running: _Running) -> None:
        request = running.request
        if self._die_on and _holds(request.prompt_ids, self._die_on):
            os.kill(os.getpid(), signal.SIGKILL)
        if self._raise_on and _holds(request.prompt_ids, self._raise_on):
            raise EngineFailed(self._raise_message)
        sampling = request.sampling
        drawn = random.random() if sampling.temperature and sampling.seed is None else sampling.seed  # noqa: S311
        key = f"{request.prompt_ids}{sampling.temperature}{drawn if sampling.temperature else ''}"
        rng = random.Random(key)  # noqa: S311
        wanted = int(self._wordiness * rng.randint(max(1, request.max_tokens // 3), request.max_tokens * 4 // 3))
        running.length = min(request.max_tokens, wanted)
        running.words = rng.choices(self._words, k=running.length - (wanted <= request.max_tokens))
        running.started_at = time.monotonic()
        self._cut_at_stop(running)
        self._running[request.id] = running

    @staticmethod
    def _cut_at_stop(running: _Running) -> None:
        """Stop where the first stop string is whole."""
        stops = running.request.sampling.stop
        for count in range(1, len(running.words) + 1):
            text = " ".join(running.words[:count])
            if cut_at_stop(text, stops) != text:
                running.words, running.length = running.words[:count], count
                return


def _completion(running: _Running) -> Completion:
    request, now = running.request, time.monotonic()
    text = " ".join(running.words)
    cut = cut_at_stop(text, request.sampling.stop)
    ended = cut != text or len(running.words) < running.length
    first_at = running.first_at or now
    return Completion(
        request_id=request.id,
        text=cut,
        finish_reason=FinishReason.STOP if ended else FinishReason.LENGTH,
        prompt_tokens=len(request.prompt_ids),
        completion_tokens=running.written,
        queue_s=running.started_at - running.taken_at,
        prefill_s=first_at - running.started_at,
        decode_s=now - first_at,
        batch_size=sum(running.beside) / len(running.beside),
    )


def _holds(ids: Sequence[int], marker: tuple[int, ...]) -> bool:
    return any(tuple(ids[at : at + len(marker)]) == marker for at in range(len(ids) - len(marker) + 1))
