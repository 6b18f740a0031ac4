"""The seam between docmill and a model: Request -> Completion, behind one Protocol.

Every engine, the simulated one included, passes the contract suite in `tests/engines/`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from docmill.broker.sampling import Sampling
from docmill.errors import DocmillError
from docmill.storage.attempt_metrics import GeneratedText

RequestId = str


class FinishReason(StrEnum):
    """Why a text ended."""

    STOP = "stop"  # an end-of-text token or a stop string
    LENGTH = "length"  # max_tokens were written


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt for an engine, already tokenized: what the producer counted is what the model reads."""

    id: RequestId
    prompt_ids: tuple[int, ...]
    max_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    stop_token_ids: tuple[int, ...] = ()

    @property
    def most_tokens(self) -> int:
        """Tokens whose keys and values are kept when the output is as long as it may be."""
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
    """What an engine that has loaded its model says of itself.

    `context_window` in tokens; `slots` is how many requests it works on at once; `fingerprint` names the exact
    weights and precision, so that two results can be told to come from the same model. `remarks` are for the log.
    """

    engine: str
    model: str
    context_window: int
    slots: int
    fingerprint: str
    remarks: tuple[str, ...] = ()


class Engine(Protocol):
    """A loaded model with continuous batching. Used by one thread, in the engine process."""

    facts: EngineFacts

    def add(self, request: Request) -> None:
        """Take a request. Raises RequestRefused when it can never run; then nothing was taken."""
        ...

    def step(self) -> list[Completion]:
        """Do a slice of work (at most about a second) and return what has finished. Idle: return at once."""
        ...

    def cancel(self, request_id: RequestId) -> None:
        """Stop a queued or running request without a completion; unknown ids are ignored."""
        ...

    def text_so_far(self, request_id: RequestId) -> str | None:
        """What a request has written (see `shown_text`), None for unknown ids. Asked only for what people watch."""
        ...

    @property
    def in_flight(self) -> int:
        """Requests taken and not yet finished or cancelled."""
        ...

    def close(self) -> None:
        """Free the model. Calling it again does nothing."""
        ...


class EngineError(DocmillError):
    """Base of everything that goes wrong in or around an engine."""


class ModelUnusable(EngineError):
    """The model's files are missing, damaged or not for this engine. The message says what to do."""


class RequestRefused(EngineError):
    """This request can never run here, however often it is tried."""


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
    """The engine raised while this request was in it. Worth another try."""


class EngineDied(EngineError):
    """The engine process ended while this request was alone in it."""


class RequestCancelled(EngineError):
    """The request was cancelled before it finished."""


class EngineClosed(EngineError):
    """The engine is shutting down: nothing was charged to the request, and it can run elsewhere."""


def check_fits(request: Request, context_window: int) -> None:
    """Raise PromptTooLong unless prompt and output fit the window: no engine is trusted to notice itself."""
    if not request.prompt_ids:
        raise RequestRefused("the prompt is empty")
    if request.max_tokens < 1:
        raise RequestRefused(f"max_tokens must be at least 1, not {request.max_tokens}")
    if len(request.prompt_ids) + request.max_tokens > context_window:
        raise PromptTooLong(len(request.prompt_ids), request.max_tokens, context_window)


def cut_at_stop(text: str, stops: Iterable[str]) -> str:
    """The text before the first of the stop strings, all of it where there is none."""
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


def shown_text(text: str, stops: Iterable[str]) -> str:
    """Unfinished text without what may still go: a stop string or its beginning, half a character (U+FFFD)."""
    cut = cut_at_stop(text, stops)
    if cut != text:
        return cut
    begun = (size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size]))
    return text[: len(text) - max(begun, default=0)].rstrip("\ufffd")
