"""What a check found: one sentence with the facts, and one with what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """PASS: nothing to do. WARN: it works, but worse than it could. FAIL: it does not work."""

    PASS = "pass"  # noqa: S105 - not a password
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """`section` and `check` name what was checked, `what` the facts, `advice` what to do ("" if nothing)."""

    section: str
    check: str
    status: Status
    what: str
    advice: str = ""


@dataclass(frozen=True)
class Section:
    """Makes the findings of one section."""

    name: str

    def passed(self, check: str, what: str) -> Finding:
        return Finding(self.name, check, Status.PASS, what)

    def warning(self, check: str, what: str, advice: str) -> Finding:
        return Finding(self.name, check, Status.WARN, what, advice)

    def failure(self, check: str, what: str, advice: str) -> Finding:
        return Finding(self.name, check, Status.FAIL, what, advice)

    def judged(self, check: str, what: str, *, is_bad: bool, advice: str) -> Finding:
        """A warning with the advice, or a pass with the same facts."""
        return self.warning(check, what, advice) if is_bad else self.passed(check, what)


def worst(findings: Iterable[Finding]) -> Status:
    """The worst status; PASS if there is no finding."""
    order = (Status.PASS, Status.WARN, Status.FAIL)
    return max((finding.status for finding in findings), key=order.index, default=Status.PASS)
