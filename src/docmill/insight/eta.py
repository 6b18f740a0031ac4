"""How long a batch will still take, with its spread, from how fast it went lately.

The recent past is cut into windows of equal length, so many that two jobs end in one on average, at most twelve. The
mean of their rates, tokens a second, gives the time left. The rates' variation gives the spread: with `n` windows
measured and `m` windows of the same length to come, the mean of those to come lies within

    1.28 * s * sqrt(1/n + 1/m)

of the measured one in four cases of five (`s`: the windows' standard deviation; a prediction interval). What it
cannot know: workers that come or go, jobs unlike those so far, merge levels that are not planned yet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

_WINDOWS = 12
_FEWEST = 3
_A_WINDOW = 2  # jobs that end in one
_FOUR_OF_FIVE = 1.28
_HOPELESS = 0.9  # beyond that the latest end is anybody's guess


@dataclass(frozen=True, slots=True)
class Finish:
    """A job's end: when (seconds) and how many tokens it took."""

    at: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Eta:
    """Seconds left. `soonest_s` and `latest_s` are None while too little is measured, or too unevenly."""

    seconds: float
    soonest_s: float | None = None
    latest_s: float | None = None


def windows_of(finishes: Sequence[Finish], since: float, now: float) -> list[float]:
    """Tokens a second in each window between `since` and `now`, the oldest first; one where jobs are few."""
    if now <= since:
        return []
    count = max(1, min(_WINDOWS, len(finishes) // _A_WINDOW))
    length_s = (now - since) / count
    tokens = [0] * count
    for finish in finishes:
        if since <= finish.at <= now:
            tokens[min(count - 1, int((finish.at - since) / length_s))] += finish.tokens
    return [amount / length_s for amount in tokens]


def estimate(rates: Sequence[float], window_s: float, tokens_left: float) -> Eta | None:
    """The time that `tokens_left` will take, None while nothing is measured."""
    rate = fmean(rates) if rates else 0.0
    if rate <= 0:
        return None
    seconds = tokens_left / rate
    if len(rates) < _FEWEST or seconds <= 0:
        return Eta(seconds)
    to_come = max(seconds / window_s, 1.0)
    off = _FOUR_OF_FIVE * stdev(rates) * math.sqrt(1 / len(rates) + 1 / to_come) / rate
    return Eta(seconds, seconds / (1 + off), seconds / (1 - off) if off < _HOPELESS else None)
