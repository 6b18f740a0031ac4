"""What is to be submitted, and what became of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from docmill.producer.batch_plan import Plan
from docmill.producer.intake.sources import Document, IntakeOptions, Skipped
from docmill.producer.tasks import Task


@dataclass(frozen=True, slots=True)
class Submission:
    """What to submit: inputs as `docmill.producer.intake.sources` takes them, and how."""

    inputs: Sequence[str]
    plan: Plan
    task: Task
    intake: IntakeOptions = field(default_factory=IntakeOptions)
    priority: int = 5
    metadata: Mapping[str, str] = field(default_factory=dict)
    deadline_s: float | None = None
    idempotency_key: str | None = None
    reuse: bool = True

    @property
    def key(self) -> str:
        """Equal for submissions of the same inputs with the same plan: what a repeated one is known by."""
        inputs = [item if item == "-" else str(Path(item).absolute()) for item in self.inputs]
        content = json.dumps([inputs, self.plan.to_json(), self.priority], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of it. `resumed`: an earlier, same submission was taken up or found finished."""

    batch_id: str
    documents: int
    skipped: Sequence[Skipped]
    warnings: Sequence[str]
    resumed: bool


class Resume(StrEnum):
    """Which earlier batch of the same submission is taken up rather than doubled."""

    UNFINISHED = "unfinished"  # one whose submission died half way
    ANY = "any"  # the newest, also when it runs or is completed


OnDocument = Callable[[Document | Skipped], None]
