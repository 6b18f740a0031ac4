"""How a rule is registered, and what it receives. The rules themselves are in `rules/`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from docmill.insight.findings import Finding, Section
from docmill.storage.reads.batch_evidence import Evidence


@dataclass(frozen=True, slots=True)
class Host:
    """The machine and the model that the batch ran on. Sizes in bytes, 0 if unknown.

    `memory_bytes` and `vram_bytes` are 0 if the worker with the largest peak ran on another host;
    `has_chat_template` is None if the model is not on this machine.
    """

    cores: int
    memory_bytes: int
    vram_bytes: int
    has_chat_template: bool | None


Rule = Callable[[Evidence, Host], Iterable[Finding]]


@dataclass(frozen=True)
class RuleSection(Section):
    """A section of the diagnosis and its rules, in the order of the output."""

    rules: list[Rule] = field(default_factory=list)

    def rule(self, function: Rule) -> Rule:
        """Decorator: adds a rule to the section."""
        self.rules.append(function)
        return function
