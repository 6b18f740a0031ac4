"""How many jobs were in the engines over time, and how fast the engines read and wrote.

Each attempt reads its prompt at a constant rate during its prefill, and writes at a constant rate during its decode.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from docmill.storage.reads.measurements import Span, WorkerTotals
from docmill.storage.states import AttemptOutcome

_MOST_BUCKETS = 120
_FEWEST_BUCKETS = 12


@dataclass(frozen=True, slots=True)
class Timeline:
    """Means per bucket of `width_s` seconds: jobs in the engines, slots of the workers, tokens per second."""

    width_s: float
    running: Sequence[float]
    slots: Sequence[float]
    read_per_s: Sequence[float]
    written_per_s: Sequence[float]

    @property
    def occupancy(self) -> float | None:
        """The share of the slots that held a job of the batch; None if the number of slots is not known."""
        slots = sum(self.slots)
        return sum(map(min, self.running, self.slots)) / slots if slots else None

    def edges_s(self) -> list[float]:
        """The limits of the buckets, in seconds from the start; one more than there are buckets."""
        return [number * self.width_s for number in range(len(self.running) + 1)]


def build_timeline(attempts: Iterable[Any], count: int, span: Span, workers: Sequence[WorkerTotals]) -> Timeline | None:
    """The timeline of about `count` attempts (rows of `attempts_in_engines`); None if no time has passed."""
    buckets = max(_FEWEST_BUCKETS, min(_MOST_BUCKETS, count))
    width_s = span.seconds / buckets
    if width_s <= 0:
        return None
    running, slots, read, written = (_Buckets(buckets, width_s) for _ in range(4))
    for attempt in attempts:
        entered_s = attempt.started_at - span.began_at + (attempt.queue_s or 0.0)
        if attempt.outcome is AttemptOutcome.SUCCEEDED and attempt.prefill_s is not None:
            first_token_s = entered_s + attempt.prefill_s
            left_s = first_token_s + (attempt.decode_s or 0.0)
            read.spread(attempt.prompt_tokens or 0, entered_s, first_token_s)
            written.spread(attempt.completion_tokens or 0, first_token_s, left_s)
        else:
            left_s = (attempt.finished_at or span.ended_at) - span.began_at
        running.spread(max(0.0, left_s - entered_s), entered_s, left_s)
    for worker in workers:
        slots.spread(worker.slots * worker.seconds, worker.began_at - span.began_at, worker.ended_at - span.began_at)
    return Timeline(width_s, running.means, slots.means, read.means, written.means)


class _Buckets:
    """Means per second in buckets of equal width."""

    def __init__(self, count: int, width_s: float) -> None:
        self.means = [0.0] * count
        self._width_s = width_s

    def spread(self, amount: float, begin_s: float, end_s: float) -> None:
        """Spread an amount evenly over the time from `begin_s` to `end_s`; the last bucket takes what is later."""
        means, width_s = self.means, self._width_s
        last = min(int(end_s / width_s), len(means) - 1)
        first = min(int(begin_s / width_s), last)
        if first == last:
            means[first] += amount / width_s
            return
        per_s = amount / (end_s - begin_s)
        means[first] += per_s * (first + 1 - begin_s / width_s)
        for bucket in range(first + 1, last):
            means[bucket] += per_s
        means[last] += per_s * (end_s / width_s - last)
