"""Faults when they are due, one after the other, each undone when its time is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tests.chaos.cluster import Cluster
from tests.chaos.faults import Undo, apply
from tests.chaos.schedule import Fault

_EVERY_S = 0.25


class Timeline:
    """`log` says when what was done. `meanwhile` is called between the acts."""

    def __init__(self, cluster: Cluster, began_at: float, meanwhile: Callable[[], None]) -> None:
        self._cluster = cluster
        self._began_at = began_at
        self._meanwhile = meanwhile
        self._lasting: dict[str, tuple[float, Fault, Undo]] = {}  # by resource, with the time of its end
        self.log: list[str] = []

    def play(self, faults: Sequence[Fault]) -> None:
        """Do them all; returns when the last is undone."""
        for fault in faults:
            self._wait_until(fault.at_s)
            self._undo(fault.resource)  # a busy machine may be late: two are never on the same thing at once
            undo = apply(fault, self._cluster)
            self._say(str(fault))
            if undo is not None:
                self._lasting[fault.resource] = (self._now_s + fault.lasts_s, fault, undo)
        while self._lasting:
            self._wait_until(min(over_s for over_s, _, _ in self._lasting.values()))

    @property
    def _now_s(self) -> float:
        return time.monotonic() - self._began_at

    def _wait_until(self, at_s: float) -> None:
        while True:
            for resource in [r for r, (over_s, _, _) in self._lasting.items() if over_s <= self._now_s]:
                self._undo(resource)
            left_s = at_s - self._now_s
            if left_s <= 0:
                return
            self._meanwhile()
            time.sleep(max(0.0, min(_EVERY_S, at_s - self._now_s)))

    def _undo(self, resource: str) -> None:
        if resource in self._lasting:
            _, fault, undo = self._lasting.pop(resource)
            undo()
            self._say(f"        over: {fault}")

    def _say(self, what: str) -> None:
        self.log.append(f"{self._now_s:5.1f} s: {what}")
