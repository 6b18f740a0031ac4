"""An engine without a model, for load tests and for tests of everything around engines: random words at given rates.

It is never chosen automatically: use `--engine simulated` or the model `simulated`. A step takes as long as a device
with these rates would need: all new prompts are prefilled one after the other, then each running request gets a token.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from docmill.worker.engines.base import (
    Completion,
    EngineFacts,
    EngineFailed,
    FinishReason,
    cut_at_stop,
)
from docmill.worker.engines.queueing_engine import QueuedRequest, QueueingEngine
from docmill.worker.engines.spec import EngineSpec

_WORDS = (
    "paper", "river", "naïve", "stone", "letter", "winter", "東京", "harbour", "copper", "glass", "café", "engine",
    "garden", "market", "Привет", "mountain", "signal", "thread", "👩‍🚀", "window",
)  # fmt: skip


@dataclass(slots=True, eq=False)
class _SimulatedRequest(QueuedRequest):
    words: list[str] = field(default_factory=list)  # the whole answer, chosen when the request starts
    length: int = 0  # tokens: one for each word, and one for the end of the text unless max_tokens comes first
    written: int = 0


class SimulatedEngine(QueueingEngine[_SimulatedRequest]):
    """The answer to a prompt is random, and the same each time for the same seed.

    Options: `prefill_tokens_per_s`; `decode_steps_per_s`; `words` to write; `wordiness`, a factor for the length of
    answers; `die_on` and `raise_on`, token ids: a prompt that contains them in a row kills the process, or makes the
    engine raise `raise_message`, as a defective kernel would.
    """

    _request_type = _SimulatedRequest

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__(EngineFacts("simulated", spec.model.name, spec.window, spec.slots, "simulated-1"))
        self._prefill_rate = float(spec.options.get("prefill_tokens_per_s", 200_000))
        self._decode_rate = float(spec.options.get("decode_steps_per_s", 2_000))
        self._die_on = tuple(spec.options.get("die_on", ()))
        self._raise_on = tuple(spec.options.get("raise_on", ()))
        self._raise_message = str(spec.options.get("raise_message", "the simulated engine was asked to raise"))
        self._words = tuple(spec.options.get("words", _WORDS))
        self._wordiness = float(spec.options.get("wordiness", 1.0))

    def _start(self, queued: _SimulatedRequest) -> None:
        request, sampling = queued.request, queued.request.sampling
        if self._die_on and _contains(request.prompt_ids, self._die_on):
            os.kill(os.getpid(), signal.SIGKILL)
        if self._raise_on and _contains(request.prompt_ids, self._raise_on):
            raise EngineFailed(self._raise_message)
        drawn = random.random() if sampling.temperature and sampling.seed is None else sampling.seed  # noqa: S311
        key = f"{request.prompt_ids}{sampling.temperature}{drawn if sampling.temperature else ''}"
        rng = random.Random(key)  # noqa: S311
        wanted = int(self._wordiness * rng.randint(max(1, request.max_tokens // 3), request.max_tokens * 4 // 3))
        queued.length = min(request.max_tokens, wanted)
        queued.words = rng.choices(self._words, k=queued.length - (wanted <= request.max_tokens))
        for count in range(1, len(queued.words) + 1):
            text = " ".join(queued.words[:count])
            if cut_at_stop(text, sampling.stop) != text:
                queued.words, queued.length = queued.words[:count], count
                break

    def _advance(self) -> list[Completion]:
        new = [running for running in self._running.values() if running.first_token_at is None]
        prefill_s = sum(len(running.request.prompt_ids) for running in new) / self._prefill_rate
        time.sleep(prefill_s + 1 / self._decode_rate)
        for running in self._running.values():
            running.first_token_at = running.first_token_at or time.monotonic()
            running.written += 1
        return [_completion(running) for running in self._running.values() if running.written >= running.length]

    def _abort(self, running: _SimulatedRequest) -> None:
        """There is nothing to stop."""

    def _text(self, running: _SimulatedRequest) -> str:
        return " ".join(running.words[: running.written])


def _completion(running: _SimulatedRequest) -> Completion:
    text = " ".join(running.words)
    has_ended = cut_at_stop(text, running.request.sampling.stop) != text or len(running.words) < running.length
    return running.completion(text, FinishReason.STOP if has_ended else FinishReason.LENGTH, running.written)


def _contains(ids: Sequence[int], part: tuple[int, ...]) -> bool:
    return any(tuple(ids[at : at + len(part)]) == part for at in range(len(ids) - len(part) + 1))
