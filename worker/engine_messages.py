"""The messages between a worker and its engine process, in both directions. They must pickle."""

from __future__ import annotations

from dataclasses import dataclass

from docmill.worker.engines.base import Completion, EngineFacts, Request, RequestId, RequestRefused


@dataclass(frozen=True, slots=True)
class Add:
    """To the engine: run this request."""

    request: Request


@dataclass(frozen=True, slots=True)
class Cancel:
    """To the engine: drop this request."""

    request_id: RequestId


@dataclass(frozen=True, slots=True)
class WatchText:
    """To the engine: for five seconds, send what this request writes after its first `have` characters."""

    request_id: RequestId
    have: int


@dataclass(frozen=True, slots=True)
class Stop:
    """To the engine: exit."""


@dataclass(frozen=True, slots=True)
class Ready:
    """From the engine: the model is loaded and has generated a token."""

    facts: EngineFacts


@dataclass(frozen=True, slots=True)
class Unusable:
    """From the engine: the model cannot be loaded; the process exits."""

    reason: str


@dataclass(frozen=True, slots=True)
class Finished:
    """From the engine: these requests are complete."""

    completions: list[Completion]


@dataclass(frozen=True, slots=True)
class Refused:
    """From the engine: this request can never run."""

    request_id: RequestId
    error: RequestRefused


@dataclass(frozen=True, slots=True)
class TextWritten:
    """From the engine: a part of a watched request's text, which begins at the character `start`."""

    request_id: RequestId
    start: int
    text: str


@dataclass(frozen=True, slots=True)
class Failed:
    """From the engine: it raised an exception, and the process exits."""

    reason: str


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """From the engine: a step has ended."""


ToEngine = Add | Cancel | WatchText | Stop
FromEngine = Ready | Unusable | Finished | Refused | TextWritten | Failed | Heartbeat
