"""One prompt, asked at several temperatures at once, on an engine in this command: no broker, no database."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from docmill.broker.sampling import Sampling
from docmill.producer.errors import ProducerError
from docmill.producer.model_text import ModelText
from docmill.worker.batcher import Batcher
from docmill.worker.engines.base import Completion, EngineError, EngineFacts, PromptTooLong, Request
from docmill.worker.engines.spec import EngineSpec


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask. `sampling` holds for every answer; each has its own of `temperatures`. `max_tokens` an answer."""

    prompt: str
    system: str | None
    temperatures: tuple[float, ...]
    max_tokens: int
    sampling: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: a completion, or why there is none."""

    temperature: float
    completion: Completion | None
    error: str = ""

    @property
    def tokens_per_s(self) -> float | None:
        """Of writing, beside the other answers; None where it cannot be told."""
        done = self.completion
        return done.completion_tokens / done.decode_s if done and done.decode_s > 0 else None


@dataclass(frozen=True, slots=True)
class Trial:
    """The answers in the order of their temperatures, and what the engine said of itself. `load_s` in seconds."""

    facts: EngineFacts
    load_s: float
    prompt_tokens: int
    answers: tuple[Answer, ...]


class Bench:
    """A loaded model to ask. A context manager; `question` is checked before anything is loaded."""

    def __init__(self, spec: EngineSpec, text: ModelText, question: Question) -> None:
        """Raises ProducerError where the prompt cannot be rendered or sampled, PromptTooLong where it does not fit."""
        self._spec = spec
        self._requests = _requests(text, question)
        tokens = len(self._requests[0].prompt_ids)
        if tokens + question.max_tokens > spec.window:
            raise PromptTooLong(tokens, question.max_tokens, spec.window)
        self._question = question

    def __enter__(self) -> Bench:
        self._batcher = Batcher(self._spec)
        return self

    def __exit__(self, *_: object) -> None:
        self._batcher.close()

    def load(self) -> None:
        """Load the model. Raises ModelUnusable or EngineDied."""
        began = time.monotonic()
        self._facts = self._batcher.start()
        self._load_s = time.monotonic() - began

    def ask(self) -> Trial:
        """All answers at once, as the engine's continuous batching has it."""
        with ThreadPoolExecutor(max_workers=len(self._requests)) as pool:
            answers = tuple(pool.map(self._answer, self._question.temperatures, self._requests))
        return Trial(self._facts, self._load_s, len(self._requests[0].prompt_ids), answers)

    def _answer(self, temperature: float, request: Request) -> Answer:
        try:
            return Answer(temperature, self._batcher.generate(request))
        except EngineError as error:
            return Answer(temperature, None, str(error))


def _requests(text: ModelText, question: Question) -> Sequence[Request]:
    ids = tuple(text.renderer.render(question.system, question.prompt).ids)
    try:
        return [
            Request(
                id=f"try-{number}",
                prompt_ids=ids,
                max_tokens=question.max_tokens,
                sampling=Sampling.from_json(
                    {**text.model.suggested_sampling, **question.sampling, "temperature": temperature}
                ),
                stop_token_ids=text.tokenizer.eos_ids,
            )
            for number, temperature in enumerate(question.temperatures)
        ]
    except (TypeError, ValueError) as error:
        raise ProducerError(f"sampling: {error}") from None
