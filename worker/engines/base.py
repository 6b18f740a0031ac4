"""The interface between docmill and a model: a `Request` goes in, a `Completion` comes out.

Every engine implements the protocol `Engine` and passes the contract tests in `tests/engines/`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from docmill.broker.sampling_parameters import Sampling
from docmill.errors import DocmillError
from docmill.storage.attempt_metrics import GeneratedText

RequestId = str


class FinishReason(StrEnum):
    """Why the text ended."""

    STOP = "stop"  # an end-of-text token or a stop string
    LENGTH = "length"  # max_tokens were generated


@dataclass(frozen=True, slots=True)
class Request:
    """One tokenized prompt: the tokens that the producer counted are those that the model reads."""

    id: RequestId
    prompt_ids: tuple[int, ...]
    max_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    stop_token_ids: tuple[int, ...] = ()

    @property
    def most_tokens(self) -> int:
        """Tokens in the KV cache if the output becomes as long as allowed."""
        return len(self.prompt_ids) + self.max_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion(GeneratedText):
    """The text of one request and the metrics of `AttemptMetrics`.

    The engine process fills in `peak_memory_bytes` and `energy_j` where the engine did not.
    """

    request_id: RequestId
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What a loaded engine reports about itself.

    Attributes:
        context_window: Tokens, prompt and output together.
        slots: Requests that it runs at once.
        fingerprint: Identifies the exact weights and precision, so that results of different models can be told apart.
        remarks: Lines for the log.
    """

    engine: str
    model: str
    context_window: int
    slots: int
    fingerprint: str
    remarks: tuple[str, ...] = ()


class Engine(Protocol):
    """A loaded model with continuous batching. Used by one thread, in the engine process.

    `QueueingEngine` in `docmill.worker.engines.queueing_engine` implements all of it but the calls into a library.
    """

    facts: EngineFacts

    def add(self, request: Request) -> None:
        """Accept a request. Raises RequestRefused if it can never run."""
        ...

    def step(self) -> list[Completion]:
        """Work for at most about a second and return what has finished; return at once if there is nothing to do."""
        ...

    def cancel(self, request_id: RequestId) -> None:
        """Stop a queued or running request without a completion; unknown ids are ignored."""
        ...

    def text_so_far(self, request_id: RequestId) -> str | None:
        """What an unfinished request has written, cut by `shown_text`; None for unknown ids."""
        ...

    @property
    def in_flight(self) -> int:
        """The number of accepted requests that are neither finished nor cancelled."""
        ...

    def close(self) -> None:
        """Free the model. Calling it again does nothing."""
        ...


class EngineError(DocmillError):
    """Base class of all errors in an engine or its process."""


class ModelUnusable(EngineError):
    """The engine cannot load the model: files are missing, damaged or unsupported, or a setting is not supported."""


class RequestRefused(EngineError):
    """The engine can never run this request."""


class PromptTooLong(RequestRefused):
    """Prompt and output together exceed the context window."""

    def __init__(self, prompt_tokens: int, max_tokens: int, context_window: int) -> None:
        self.prompt_tokens, self.max_tokens, self.context_window = prompt_tokens, max_tokens, context_window
        super().__init__(
            f"the prompt of {prompt_tokens} tokens and max_tokens {max_tokens} do not fit the context window of "
            f"{context_window}; submit with smaller chunks (--chunk-tokens) or a smaller --max-tokens"
        )

    def __reduce__(self) -> tuple[type[PromptTooLong], tuple[int, int, int]]:
        return type(self), (self.prompt_tokens, self.max_tokens, self.context_window)


class EngineFailed(EngineError):
    """The engine raised an exception while it ran only this request."""


class EngineDied(EngineError):
    """The engine process crashed while it ran only this request."""


class RequestCancelled(EngineError):
    """The request was cancelled before it finished."""


class EngineClosed(EngineError):
    """The worker is shutting down. No attempt is charged to the request, and it can run elsewhere."""


def check_fits(request: Request, context_window: int) -> None:
    """Raise RequestRefused unless prompt and output fit the window; not every engine checks this itself."""
    if not request.prompt_ids:
        raise RequestRefused("the prompt is empty")
    if request.max_tokens < 1:
        raise RequestRefused(f"max_tokens must be at least 1, not {request.max_tokens}")
    if request.most_tokens > context_window:
        raise PromptTooLong(len(request.prompt_ids), request.max_tokens, context_window)


def cut_at_stop(text: str, stops: Iterable[str]) -> str:
    """The text before the first stop string, all of it if there is none."""
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


def shown_text(text: str, stops: Iterable[str]) -> str:
    """Unfinished text without what may not be in the final text: a stop string or its beginning, half a character."""
    cut = cut_at_stop(text, stops)
    if cut != text:
        return cut
    begun = (size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size]))
    return text[: len(text) - max(begun, default=0)].rstrip("\ufffd")
