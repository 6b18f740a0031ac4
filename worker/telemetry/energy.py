"""Each request's share of the energy that its engine's GPUs drew.

What is drawn between two looks is divided equally among the requests that ran then. A request's share is read off a
curve of joules for each running request: what the curve rose by while it ran. So the shares of all requests add up
to what was drawn while any ran; what an idle GPU draws is nobody's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

_EVERY_S = 0.25
_KEPT = 40_000  # looks: nearly three hours, longer than any request takes


class EnergyShares:
    """`read` gives joules since some moment, None when the GPUs do not tell. Times are those of one steady clock."""

    def __init__(self, read: Callable[[], float | None], *, every_s: float = _EVERY_S) -> None:
        self._read = read
        self._every_s = every_s
        self._times: list[float] = []
        self._curve: list[float] = []
        self._joules = 0.0
        self._running = 0

    def measure(self, now: float, running: int) -> None:
        """Note that from now on `running` requests run. Costs nothing where the last look was a moment ago."""
        if self._times and running == self._running and now - self._times[-1] < self._every_s:
            return
        joules = self._read()
        if joules is None:
            return
        rise = (joules - self._joules) / self._running if self._running else 0.0
        self._times.append(now)
        self._curve.append((self._curve[-1] if self._curve else 0.0) + max(0.0, rise))
        self._joules, self._running = joules, running
        if len(self._times) > _KEPT:
            del self._times[: _KEPT // 2], self._curve[: _KEPT // 2]

    def share_j(self, begin: float, end: float) -> float | None:
        """Joules of a request that ran from `begin` to `end`; None where that was not looked at."""
        if len(self._times) < 2 or end < self._times[0]:
            return None
        return self._at(end) - self._at(begin)

    def _at(self, when: float) -> float:
        behind = bisect_right(self._times, when)
        if behind == 0 or behind == len(self._times):
            return self._curve[0 if behind == 0 else -1]
        since, until = self._times[behind - 1], self._times[behind]
        low, high = self._curve[behind - 1], self._curve[behind]
        return low + (high - low) * (when - since) / (until - since)
