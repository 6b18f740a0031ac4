"""Two batches compared: each measure of both, and whether the change is an improvement."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

from docmill.formatting import gib, money, number, percent, rate, short_duration
from docmill.insight.report.cost import Cost
from docmill.insight.report.report_data import ReportData
from docmill.storage.reads.batch_timeline import Duration

_SAME = 0.03  # two runs of the same batch differ by this much
_SIMILAR_WORK = 0.1  # durations are compared if the amounts of work, in tokens, differ by no more


class Verdict(StrEnum):
    """What a change means; NEUTRAL if neither direction is better."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "same"
    NEUTRAL = ""


class Goal(StrEnum):
    """Which direction is better."""

    MORE = "more"
    LESS = "less"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure of both batches, None if it was not measured. `key` is its name in JSON; `shown` formats a value."""

    name: str
    key: str
    this: float | None
    earlier: float | None
    goal: Goal
    shown: Callable[[float], str]

    @property
    def ratio(self) -> float | None:
        """This batch's value divided by the earlier one's."""
        return None if self.this is None or not self.earlier else self.this / self.earlier

    @property
    def verdict(self) -> Verdict:
        if self.goal is Goal.NEITHER or self.this is None or self.earlier is None:
            return Verdict.NEUTRAL
        if abs(self.this - self.earlier) <= _SAME * abs(self.earlier):
            return Verdict.SAME
        return Verdict.BETTER if (self.this > self.earlier) is (self.goal is Goal.MORE) else Verdict.WORSE


@dataclass(frozen=True, slots=True)
class Comparison:
    """The measures of two batches; `remarks` say what makes them hard to compare."""

    earlier: ReportData
    measures: tuple[Measure, ...]
    remarks: tuple[str, ...]


def compare(this: ReportData, earlier: ReportData, cost: Cost, earlier_cost: Cost) -> Comparison:
    """Every measure that at least one batch has. What grows with the amount of work is judged for similar amounts."""
    has_similar_work = abs(this.tokens - earlier.tokens) <= _SIMILAR_WORK * earlier.tokens
    less_for_the_same_work = Goal.LESS if has_similar_work else Goal.NEITHER
    measures = (
        *_of_batches(this, earlier, less_for_the_same_work),
        *_of_costs(cost, earlier_cost, less_for_the_same_work),
    )
    measured = tuple(measure for measure in measures if measure.this is not None or measure.earlier is not None)
    return Comparison(earlier, measured, tuple(_remarks(this, earlier, has_similar_work=has_similar_work)))


def _of_batches(this: ReportData, earlier: ReportData, less: Goal) -> Iterator[Measure]:
    read: Callable[[ReportData], float | None]
    for name, key, read, goal, shown in (
        ("tokens per second", "tokens_per_s", lambda d: d.tokens_per_s, Goal.MORE, rate),
        ("written tokens per second", "written_per_s", lambda d: d.written_per_s, Goal.MORE, rate),
        ("slots in use", "occupancy", lambda d: d.occupancy, Goal.MORE, percent),
        ("working time", "working_s", lambda d: d.span.seconds or None, less, short_duration),
        ("documents", "documents", lambda d: d.status.documents_total, Goal.NEITHER, number),
        ("jobs", "jobs", lambda d: d.status.jobs_total, Goal.NEITHER, number),
        ("tokens read", "prompt_tokens", lambda d: d.succeeded.prompt_tokens, Goal.NEITHER, number),
        ("tokens written", "completion_tokens", lambda d: d.succeeded.completion_tokens, Goal.NEITHER, number),
        ("tokens reused", "reused_tokens", lambda d: d.reused_tokens, Goal.NEITHER, number),
        ("failed attempts", "failure_share", lambda d: d.failure_share, Goal.LESS, percent),
        ("peak memory", "peak_memory_bytes", lambda d: d.peak_memory_bytes or None, Goal.LESS, gib),
        ("peak VRAM", "peak_vram_bytes", lambda d: d.peak_vram_bytes, Goal.LESS, gib),
    ):  # fmt: skip
        yield Measure(name, key, read(this), read(earlier), goal, shown)
    for duration in (Duration.WAIT, Duration.PREFILL, Duration.DECODE, Duration.RUN):
        goal = less if duration is Duration.WAIT else Goal.LESS
        for share, name in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99")):
            now, then = (
                data.durations[duration].at(share) if duration in data.durations else None for data in (this, earlier)
            )
            yield Measure(f"{duration} {name}", f"{duration}_{name}_s", now, then, goal, short_duration)


def _of_costs(cost: Cost, earlier: Cost, less: Goal) -> Iterator[Measure]:
    shown = partial(money, currency=cost.prices.currency)
    yield Measure("cost", "cost", cost.total, earlier.total, less, shown)
    yield Measure(
        "cost per million tokens", "cost_per_million_tokens", cost.per_million_tokens, earlier.per_million_tokens,
        Goal.LESS, shown,
    )  # fmt: skip


def _remarks(this: ReportData, earlier: ReportData, *, has_similar_work: bool) -> Iterator[str]:
    read: Callable[[ReportData], Any]
    for name, read in (
        ("model", lambda d: d.status.model),
        ("task", lambda d: d.status.task),
        ("engine", lambda d: ", ".join(sorted({worker.engine for worker in d.workers}))),
        ("number of slots", lambda d: d.slots),
    ):
        if read(this) != read(earlier):
            now, then = read(this) or "none", read(earlier) or "none"
            yield f"The {name} differs: {now} in this batch, {then} in the earlier one."
    if not has_similar_work:
        yield (
            f"The amount of work differs: {number(this.tokens)} tokens in this batch, {number(earlier.tokens)} in the "
            "earlier one. Working time, wait and cost are therefore not judged."
        )
    for data, name in ((this, "This batch"), (earlier, "The earlier batch")):
        if not data.status.state.is_terminal:
            yield f"{name} has not ended: its numbers are those so far."
