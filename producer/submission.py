"""Submissions, their options, and the batches that result from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from math import isnan
from pathlib import Path
from typing import Any

from docmill.producer.batch_plan import Plan
from docmill.producer.errors import ProducerError
from docmill.producer.intake.documents import Document, Skipped
from docmill.producer.intake.records import Record
from docmill.producer.model_text import ModelText
from docmill.producer.task_files import Task
from docmill.settings.defaults import Producer


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitOptions:
    """The options of a submission, as `docmill.Client.submit` documents them.

    None leaves an option to the profile, the task and the model. `sampling` holds those of
    `docmill.broker.sampling_parameters.Sampling`.
    """

    profile: str | None = None
    task: str = "summarize"
    prompt: str | None = None
    model: str | None = None
    merge: str | None = None
    summary_tokens: int | None = None
    max_tokens: int | None = None
    chunk_tokens: int | None = None
    overlap_tokens: int | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    priority: int = 5
    metadata: Mapping[str, str] = field(default_factory=dict)
    deadline_s: float | None = None
    idempotency_key: str | None = None
    reuse: bool = True
    encoding: str | None = None
    text_field: str | None = None

    def check(self) -> None:
        """Raise ProducerError for numbers and stop strings that the command line rejects by itself."""
        _check_whole_number("priority", self.priority, 0, 9)
        for name, lowest in (("summary_tokens", 1), ("max_tokens", 1), ("chunk_tokens", 1), ("overlap_tokens", 0)):
            if (tokens := getattr(self, name)) is not None:
                _check_whole_number(name, tokens, lowest)
        if self.deadline_s is not None and (not isinstance(self.deadline_s, int | float) or isnan(self.deadline_s)):
            raise ProducerError(f"deadline_s must be a number of seconds, not {self.deadline_s!r}")
        if (seed := self.sampling.get("seed")) is not None:
            _check_whole_number("seed", seed)
        if not all(isinstance(text, str) for text in self.sampling.get("stop", ())):
            raise ProducerError("stop must be a string or several strings")


@dataclass(frozen=True)
class Submission:
    """A checked submission. `inputs` are those of `docmill.producer.intake.sources.read_documents`."""

    inputs: Sequence[str | Record]
    plan: Plan
    task: Task
    model_text: ModelText
    intake: Producer = field(default_factory=Producer)
    options: SubmitOptions = field(default_factory=SubmitOptions)

    @cached_property
    def key(self) -> str:
        """Equal for submissions of the same inputs with the same plan, to recognize a repeated submission."""
        inputs = [_input_key(item) for item in self.inputs]
        content = json.dumps([inputs, self.plan.to_json(), self.options.priority], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class SubmittedBatch:
    """A stored batch; `str()` gives its id.

    `documents` counts the stored documents, `skipped` lists those that could not be read, with the reason.
    `resumed`: an earlier, equal submission was continued or had already ended.
    """

    id: str
    documents: int
    skipped: Sequence[Skipped]
    warnings: Sequence[str]
    resumed: bool

    def __str__(self) -> str:
        return self.id


class Resume(StrEnum):
    """Which earlier batch of the same submission is continued instead of submitting the documents again."""

    UNFINISHED = "unfinished"  # one whose submission was interrupted
    ANY = "any"  # the newest, even if it is in progress or completed


OnDocument = Callable[[Document | Skipped], None]


def _check_whole_number(name: str, value: object, lowest: int | None = None, highest: int | None = None) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ProducerError(f"{name} must be a whole number, not {value!r}")
    if (lowest is not None and value < lowest) or (highest is not None and value > highest):
        allowed = f"from {lowest} to {highest}" if highest is not None else f"at least {lowest}"
        raise ProducerError(f"{name} must be {allowed}, not {value}")


def _input_key(item: str | Record) -> str | list[str]:
    if isinstance(item, Record):
        text = item.text if isinstance(item.text, str) else repr(item.text)
        return [item.id, hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()]
    return item if item == "-" else str(Path(item).absolute())
