"""What a rule is given beside the batch's evidence, and how it speaks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from docmill.insight.findings import Finding, Status
from docmill.storage.reads.batch_evidence import Evidence


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known beside the batch: of this machine, in bytes (0: not known), and of the model.

    `memory_bytes` is 0 where the batch's largest worker ran on another host; `has_template` is None where the model
    is not here.
    """

    cores: int
    memory_bytes: int
    vram_bytes: int
    has_template: bool | None


Rule = Callable[[Evidence, Surroundings], Iterable[Finding]]


def judged(section: str, check: str, what: str, *, is_bad: bool, advice: str) -> Finding:
    """A warning with its advice, or the same numbers as a pass."""
    return Finding(section, check, Status.WARN, what, advice) if is_bad else Finding(section, check, Status.PASS, what)
