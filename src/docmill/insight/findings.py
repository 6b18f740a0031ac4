"""What a look at something came to: one sentence, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """PASS: nothing to do. WARN: it works, and worse than it could. FAIL: it will not work."""

    PASS = "pass"  # noqa: S105 - a word, not a password
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """`section` and `check` say what was looked at, `what` what was found, `advice` what to do ("" for nothing)."""

    section: str
    check: str
    status: Status
    what: str
    advice: str = ""


def worst(findings: list[Finding]) -> Status:
    """The worst status of all; PASS for none."""
    order = (Status.PASS, Status.WARN, Status.FAIL)
    return max((finding.status for finding in findings), key=order.index, default=Status.PASS)
