"""One prompt, answered at several temperatures at once, on an engine in this process: no broker, no database."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from docmill.broker.sampling_parameters import Sampling
from docmill.producer.errors import ProducerError
from docmill.producer.model_text import ModelText
from docmill.worker.batcher import Batcher
from docmill.worker.engines.base import Completion, EngineError, EngineFacts, PromptTooLong, Request
from docmill.worker.engines.spec import EngineSpec


@dataclass(frozen=True, slots=True)
class Question:
    """The prompt, and how to sample: one answer per temperature, of at most `max_tokens`, with the same `sampling`."""

    prompt: str
    system: str | None
    temperatures: tuple[float, ...]
    max_tokens: int
    sampling: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """The completion at one temperature, or the error."""

    temperature: float
    completion: Completion | None
    error: str = ""

    @property
    def tokens_per_s(self) -> float | None:
        """The rate of the decode, while the other answers were also decoded; None if it took no time."""
        done = self.completion
        return done.completion_tokens / done.decode_s if done and done.decode_s > 0 else None


@dataclass(frozen=True, slots=True)
class TrialResult:
    """The answers in the order of the temperatures, and facts about the engine. `load_s` in seconds."""

    facts: EngineFacts
    load_s: float
    prompt_tokens: int
    answers: tuple[Answer, ...]


class TemperatureTrial:
    """Loads a model and asks it a question. A context manager; the question is checked before anything is loaded."""

    def __init__(self, spec: EngineSpec, text: ModelText, question: Question) -> None:
        """Raises ProducerError if the prompt cannot be rendered or sampled, PromptTooLong if it does not fit."""
        self._spec, self._question = spec, question
        self._prompt_ids = tuple(text.renderer.render(question.system, question.prompt).ids)
        self._eos_ids = text.tokenizer.eos_ids
        sampling = {**text.model.suggested_sampling, **question.sampling}
        try:
            self._samplings = [Sampling.from_json({**sampling, "temperature": t}) for t in question.temperatures]
        except (TypeError, ValueError) as error:
            raise ProducerError(f"sampling: {error}") from None
        if len(self._prompt_ids) + question.max_tokens > spec.window:
            raise PromptTooLong(len(self._prompt_ids), question.max_tokens, spec.window)

    def __enter__(self) -> TemperatureTrial:
        self._batcher = Batcher(self._spec)
        return self

    def __exit__(self, *_: object) -> None:
        self._batcher.close()

    def load(self) -> None:
        """Load the model. Raises ModelUnusable or EngineDied."""
        began = time.monotonic()
        self._facts = self._batcher.start()
        self._load_s = time.monotonic() - began

    def ask(self) -> TrialResult:
        """Generate all answers at once, by the engine's continuous batching."""
        with ThreadPoolExecutor(max_workers=len(self._samplings)) as pool:
            answers = tuple(pool.map(self._answer, range(len(self._samplings)), self._samplings))
        return TrialResult(self._facts, self._load_s, len(self._prompt_ids), answers)

    def _answer(self, number: int, sampling: Sampling) -> Answer:
        request = Request(f"try-{number}", self._prompt_ids, self._question.max_tokens, sampling, self._eos_ids)
        try:
            return Answer(sampling.temperature, self._batcher.generate(request))
        except EngineError as error:
            return Answer(sampling.temperature, None, str(error))
