"""Each request's share of the energy that its engine's GPUs draw.

The energy between two measurements is divided equally among the requests that ran then. The sum of these portions over
time is a curve of joules per running request; a request's share is the rise of the curve while it ran. So the shares of
all requests add up to the energy drawn while any ran; what an idle GPU draws is charged to no request.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

_INTERVAL_S = 0.25
_KEPT = 40_000  # measurements: nearly three hours, longer than any request takes


class EnergyShares:
    """`read` returns joules since some moment, None if the GPUs do not report them. Times are of one steady clock."""

    def __init__(self, read: Callable[[], float | None], *, every_s: float = _INTERVAL_S) -> None:
        self._read = read
        self._every_s = every_s
        self._times: list[float] = []
        self._curve: list[float] = []
        self._joules = 0.0
        self._running = 0

    def measure(self, now: float, running: int) -> None:
        """Note that `running` requests run from now on. Reads the GPUs only if that changed or `every_s` has passed."""
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
        """Joules of a request that ran from `begin` to `end`, None if nothing was measured then."""
        if len(self._times) < 2 or end < self._times[0]:
            return None
        return self._at(end) - self._at(begin)

    def _at(self, when: float) -> float:
        """The curve at a moment, by linear interpolation."""
        after = bisect_right(self._times, when)
        if after == 0 or after == len(self._times):
            return self._curve[0 if after == 0 else -1]
        earlier, later = self._times[after - 1], self._times[after]
        low, high = self._curve[after - 1], self._curve[after]
        return low + (high - low) * (when - earlier) / (later - earlier)
