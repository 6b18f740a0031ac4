"""When a service that ended is started again."""

from __future__ import annotations

import time

UNEXPECTED = 70  # EX_SOFTWARE of sysexits(3): an error that docmill does not know
_SAID_WHY = (1, 2)  # starting it again would only make it say so again
_IN_A_ROW = 5
_LASTING_S = 60.0


class Restarts:
    """Counts the deaths of one service that came soon after its start; one that lasts is forgiven."""

    def __init__(self) -> None:
        self._quick_deaths = 0
        self._started_at = time.monotonic()

    def started(self) -> None:
        """It was started now."""
        self._started_at = time.monotonic()

    def may_follow(self, status: int) -> bool:
        """Whether to start it again after it ended with this status, negative for a signal. Counts the death."""
        lasted = time.monotonic() - self._started_at > _LASTING_S
        self._quick_deaths = 0 if lasted else self._quick_deaths + 1
        return status not in _SAID_WHY and self._quick_deaths < _IN_A_ROW
