"""How fast jobs were done recently, and how long the rest will take.

The recent past is divided into at most twelve windows of equal length, so that at least two jobs end in a window on
average. The mean of their rates gives the remaining time. The spread of their rates gives the interval: with `n`
windows measured and `m` windows of the same length to come, the mean rate of those to come lies within

    1.28 * s * sqrt(1/n + 1/m)

of the measured mean in four of five cases, where `s` is the standard deviation of the measured rates (an 80 %
prediction interval). The estimate does not foresee workers that start or stop, jobs that differ from those so far,
and merge levels that are not planned yet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from docmill.settings.defaults import RECENT_S
from docmill.storage.states import AttemptOutcome
from docmill.storage.tables import Attempt, Job

_LONGEST_S = 1200.0  # used instead if fewer than _ENOUGH jobs ended within RECENT_S
_ENOUGH = 24
_MAX_ATTEMPTS = 2_000
_MAX_WINDOWS = 12
_JOBS_PER_WINDOW = 2
_MIN_WINDOWS_FOR_INTERVAL = 3
_Z_80_PERCENT = 1.28
_MAX_RELATIVE_ERROR = 0.9  # above this, the upper end of the interval is meaningless


@dataclass(frozen=True, slots=True)
class RecentAttempt:
    """A successful attempt. Times are seconds since 1970, memory is in bytes."""

    worker: str
    started_at: float
    finished_at: float
    prompt_tokens: int
    cached_tokens: int | None
    completion_tokens: int
    peak_memory_bytes: int

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Eta:
    """Seconds left. `soonest_s` and `latest_s` are None if too little was measured or the rates vary too much."""

    seconds: float
    soonest_s: float | None = None
    latest_s: float | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """Tokens per second in successive windows of equal length, the oldest first; no windows: nothing was measured."""

    rates: Sequence[float] = ()
    window_s: float = 1.0

    @property
    def tokens_per_s(self) -> float | None:
        """The mean over the windows; None if nothing was measured."""
        return fmean(self.rates) if self.rates else None

    def eta(self, tokens_left: float) -> Eta | None:
        """The time that `tokens_left` more tokens will take; None if nothing was measured."""
        rate = self.tokens_per_s
        if not rate:
            return None
        seconds = tokens_left / rate
        if len(self.rates) < _MIN_WINDOWS_FOR_INTERVAL or seconds <= 0:
            return Eta(seconds)
        windows_left = max(seconds / self.window_s, 1.0)
        error = _Z_80_PERCENT * stdev(self.rates) * math.sqrt(1 / len(self.rates) + 1 / windows_left) / rate
        return Eta(seconds, seconds / (1 + error), seconds / (1 - error) if error < _MAX_RELATIVE_ERROR else None)


def pace_of(attempts: Sequence[RecentAttempt], began_at: float, now: float) -> Pace:
    """The pace over the last two minutes since `began_at`, or over the last twenty if few attempts ended in two."""
    recent = [attempt for attempt in attempts if attempt.finished_at > now - RECENT_S]
    span_s = RECENT_S
    if len(recent) < _ENOUGH:
        recent, span_s = list(attempts), _LONGEST_S
    if not recent:
        return Pace()
    since = max(began_at, now - span_s, min(attempt.started_at for attempt in recent))
    if now <= since:
        return Pace()
    count = max(1, min(_MAX_WINDOWS, len(recent) // _JOBS_PER_WINDOW))
    window_s = (now - since) / count
    tokens = [0] * count
    for attempt in recent:
        if since <= attempt.finished_at <= now:
            tokens[min(count - 1, int((attempt.finished_at - since) / window_s))] += attempt.tokens
    return Pace([amount / window_s for amount in tokens], window_s)


def recent_attempts(
    session: Session, models: Sequence[str], now: float, *conditions: ColumnElement[bool]
) -> list[RecentAttempt]:
    """The newest successful attempts of the last twenty minutes, at most 2,000, of these models."""
    rows = session.execute(
        select(
            Attempt.worker,
            Attempt.started_at,
            Attempt.finished_at,
            func.coalesce(Attempt.prompt_tokens, 0),
            Attempt.cached_tokens,
            func.coalesce(Attempt.completion_tokens, 0),
            func.coalesce(Attempt.peak_memory_bytes, 0),
        )
        .join(Job, Job.id == Attempt.job_id)
        .where(
            Attempt.model.in_(models),
            Attempt.finished_at >= now - _LONGEST_S,
            Attempt.outcome == AttemptOutcome.SUCCEEDED,
            *conditions,
        )
        .order_by(Attempt.finished_at.desc())
        .limit(_MAX_ATTEMPTS)
    )
    return [RecentAttempt(*row) for row in rows]
