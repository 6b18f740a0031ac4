"""Errors on the way from documents to jobs. Each message says what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from docmill.errors import WrongUse


class ProducerError(WrongUse):
    """Base of the producer package's errors."""


class InputNotFound(ProducerError):
    """An input does not exist, cannot be read, or is a directory without documents."""

    def __init__(
        self, name: str, reason: str = "there is no such file or directory, and no file matches it as a pattern"
    ) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"{name}: {reason}")


class DocumentUnreadable(ProducerError):
    """A document cannot be read; the others of its batch can."""

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"{name}: {reason}")


class RecordInvalid(ProducerError):
    """A text given in memory has no usable id, or its row lacks a field."""

    def __init__(self, place: int, reason: str) -> None:
        self.place = place
        super().__init__(f"record {place} (counted from 0): {reason}")


class WindowTooLarge(ProducerError):
    """The context window is larger than the model's."""

    def __init__(self, context_window: int, most: int, model: str) -> None:
        self.context_window, self.most = context_window, most
        super().__init__(
            f"context_window {context_window} is more than the {most} tokens of {model}; "
            f"set context_window to {most} or less (and max_tokens well below it)"
        )


class NoRoomForOutput(ProducerError):
    """The longest output fills the context window."""

    def __init__(self, max_tokens: int, context_window: int) -> None:
        self.max_tokens, self.context_window = max_tokens, context_window
        super().__init__(
            f"max_tokens {max_tokens} leaves no room for text in a context window of {context_window} tokens; "
            "use a smaller --max-tokens"
        )


class NoRoomForText(ProducerError):
    """Template and output fill the context window, or a single character is longer than the longest chunk."""

    def __init__(self, needed: int, limit: int) -> None:
        self.needed, self.limit = needed, limit
        super().__init__(
            f"there is no room for text: {needed} tokens are needed where {limit} are allowed; "
            "use a smaller --max-tokens, a shorter prompt or a larger --chunk-tokens"
        )


class NothingToDo(ProducerError):
    """No document of the inputs could be read."""

    exit_code = 1

    def __init__(self, reason: str) -> None:
        super().__init__(f"nothing to do: no document could be read ({reason})")


class IdempotencyKeyReused(ProducerError):
    """The idempotency key belongs to a submission with other inputs or options."""

    def __init__(self, key: str, batch_id: str) -> None:
        self.key, self.batch_id = key, batch_id
        super().__init__(
            f"the idempotency key {key!r} was used for batch {batch_id}, with other inputs or options; "
            "use another key, or submit the same"
        )


class UnknownTemplateVariable(ProducerError):
    """A prompt template uses an unknown variable."""

    def __init__(self, where: str, name: str, allowed: Iterable[str]) -> None:
        self.name = name
        known = sorted(allowed)
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        super().__init__(f"{where}: unknown variable {name!r}; {hint}there are {', '.join(known)}")


class TemplateInvalid(ProducerError):
    """A prompt template, or the model's chat template, cannot be used."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")


class TaskInvalid(ProducerError):
    """A task file does not exist or is invalid."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"task {where}: {reason}")


class TokenizerUnsupported(ProducerError):
    """docmill cannot count tokens exactly with a vocabulary of this kind."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(f"the tokenizer of {model} is not supported: {reason}")
