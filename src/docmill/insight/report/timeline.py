"""The course of a batch: how many jobs were in the engines, and how fast they read and wrote, bucket by bucket.

Each attempt is taken to read, then to write at its own constant rate. Then the sum over all attempts up to a moment
`t` is a sum of straight lines, `weight * (t - at)` for every change before `t`; bucket by bucket these need only the
changes' weights and their weighted times, which the database adds up. The means are exact, whatever the number of
attempts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from docmill.storage.reads.batch_timeline import Change
from docmill.storage.reads.measurement_types import Span, WorkerTotals

_MOST_BUCKETS = 120
_FEWEST_BUCKETS = 12


@dataclass(frozen=True, slots=True)
class Course:
    """The means of each bucket of `width_s` seconds: jobs in the engines, slots there were, tokens a second."""

    width_s: float
    running: Sequence[float]
    slots: Sequence[float]
    read_per_s: Sequence[float]
    written_per_s: Sequence[float]

    @property
    def occupancy(self) -> float | None:
        """The share of the slots that held a job of the batch; None where nobody knows how many there were."""
        slots = sum(self.slots)
        if not slots:
            return None
        return sum(min(running, most) for running, most in zip(self.running, self.slots, strict=True)) / slots

    def edges_s(self) -> list[float]:
        """The buckets' limits, in seconds since the first one's begin; one more than there are buckets."""
        return [number * self.width_s for number in range(len(self.running) + 1)]


def buckets_for(attempts: int) -> int:
    """As many as can be drawn, and no more than there is something to see in."""
    return max(_FEWEST_BUCKETS, min(_MOST_BUCKETS, attempts))


def course_of(changes: Sequence[Change], span: Span, buckets: int, workers: Sequence[WorkerTotals]) -> Course | None:
    """None where no time has passed."""
    width_s = span.seconds / buckets
    if width_s <= 0:
        return None
    return Course(
        width_s,
        _means([(c.bucket, c.running, c.running_at) for c in changes], width_s, buckets),
        [_slots(workers, span.began_at + number * width_s, width_s) for number in range(buckets)],
        _means([(c.bucket, c.read, c.read_at) for c in changes], width_s, buckets),
        _means([(c.bucket, c.written, c.written_at) for c in changes], width_s, buckets),
    )


def _means(changes: Sequence[tuple[int, float, float]], width_s: float, buckets: int) -> list[float]:
    """The mean level of each bucket from (bucket, sum of changes, sum of changes times when)."""
    change, weighted = [0.0] * buckets, [0.0] * buckets
    for number, weight, weight_at in changes:
        change[number] += weight
        weighted[number] += weight_at
    means: list[float] = []
    level = 0.0  # at the beginning of the bucket
    for number in range(buckets):
        end = (number + 1) * width_s
        inside = change[number] * end - weighted[number]
        means.append(max(0.0, level + inside / width_s))
        level += change[number]
    return means


def _slots(workers: Sequence[WorkerTotals], begin: float, width_s: float) -> float:
    """The mean number of slots in a bucket, each worker's from its first to its last job."""
    return sum(
        worker.slots * max(0.0, min(worker.ended_at, begin + width_s) - max(worker.began_at, begin)) / width_s
        for worker in workers
    )
