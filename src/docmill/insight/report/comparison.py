"""Two batches side by side: what became of each measure, and whether that is better."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from docmill.formatting import gib, money, number, percent, rate, short_duration
from docmill.insight.report.cost import Cost
from docmill.insight.report.report_data import ReportNumbers
from docmill.storage.reads.batch_timeline import Duration

_EQUAL = 0.03  # a difference that two runs of the same have anyway
_ALIKE = 0.1  # so much more or less work, in tokens, still takes a comparable time


class Verdict(StrEnum):
    """What a change means; NEUTRAL where neither direction is better."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "same"
    NEUTRAL = ""


class Wish(StrEnum):
    """Which direction is better."""

    MORE = "more"
    LESS = "less"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Compared:
    """One measure of both batches; None where it was not measured. `unit` is part of the name in JSON."""

    name: str
    key: str
    this: float | None
    earlier: float | None
    wish: Wish
    shown: Callable[[float], str]

    @property
    def ratio(self) -> float | None:
        """This batch's value over the earlier one's."""
        return None if self.this is None or not self.earlier else self.this / self.earlier

    @property
    def verdict(self) -> Verdict:
        if self.wish is Wish.NONE or self.this is None or self.earlier is None:
            return Verdict.NEUTRAL
        if abs(self.this - self.earlier) <= _EQUAL * abs(self.earlier):
            return Verdict.SAME
        return Verdict.BETTER if (self.this > self.earlier) is (self.wish is Wish.MORE) else Verdict.WORSE


@dataclass(frozen=True, slots=True)
class Comparison:
    """`remarks` say what makes the two hard to compare."""

    earlier: ReportNumbers
    rows: tuple[Compared, ...]
    remarks: tuple[str, ...]


def compare(this: ReportNumbers, earlier: ReportNumbers, cost: Cost, earlier_cost: Cost) -> Comparison:
    """Every measure that at least one of them has. What grows with the work is judged only where that is alike."""
    less = Wish.LESS if _same_work(this, earlier) else Wish.NONE
    rows = [
        *_totals(this, earlier, less),
        *_durations(this, earlier, less),
        *_costs(cost, earlier_cost, less),
    ]
    measured = tuple(row for row in rows if row.this is not None or row.earlier is not None)
    return Comparison(earlier, measured, tuple(_remarks(this, earlier)))


def _totals(this: ReportNumbers, earlier: ReportNumbers, less: Wish) -> Iterator[Compared]:
    measures: tuple[tuple[str, str, Callable[[ReportNumbers], float | None], Wish, Callable[[float], str]], ...] = (
        ("tokens a second", "tokens_per_s", lambda n: n.tokens_per_s, Wish.MORE, rate),
        ("written tokens a second", "written_per_s", lambda n: n.written_per_s, Wish.MORE, rate),
        ("slots in use", "occupancy", lambda n: n.occupancy, Wish.MORE, percent),
        ("time at work", "working_s", lambda n: n.span.seconds or None, less, short_duration),
        ("documents", "documents", lambda n: n.status.documents_total, Wish.NONE, number),
        ("jobs", "jobs", lambda n: n.status.jobs_total, Wish.NONE, number),
        ("tokens read", "prompt_tokens", lambda n: n.succeeded.prompt_tokens, Wish.NONE, number),
        ("tokens written", "completion_tokens", lambda n: n.succeeded.completion_tokens, Wish.NONE, number),
        ("tokens reused", "reused_tokens", lambda n: n.reused_tokens, Wish.NONE, number),
        ("failed attempts", "failure_share", lambda n: n.failure_share, Wish.LESS, percent),
        ("peak memory", "peak_memory_bytes", lambda n: n.peak_memory_bytes or None, Wish.LESS, gib),
        ("peak VRAM", "peak_vram_bytes", lambda n: n.peak_vram_bytes, Wish.LESS, gib),
    )
    for name, key, read, wish, shown in measures:
        yield Compared(name, key, read(this), read(earlier), wish, shown)


def _durations(this: ReportNumbers, earlier: ReportNumbers, less: Wish) -> Iterator[Compared]:
    for duration in (Duration.WAIT, Duration.PREFILL, Duration.DECODE, Duration.RUN):
        wish = less if duration is Duration.WAIT else Wish.LESS
        for share, name in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99")):
            then, now = (_percentile(numbers, duration, share) for numbers in (earlier, this))
            yield Compared(f"{duration} {name}", f"{duration}_{name}_s", now, then, wish, short_duration)


def _percentile(numbers: ReportNumbers, duration: Duration, share: float) -> float | None:
    return numbers.durations[duration].at(share) if duration in numbers.durations else None


def _costs(cost: Cost, earlier: Cost, less: Wish) -> Iterator[Compared]:
    currency = cost.prices.currency

    def shown(amount: float) -> str:
        return money(amount, currency)

    yield Compared("cost", "cost", cost.total, earlier.total, less, shown)
    yield Compared(
        "cost of a million tokens", "cost_per_million_tokens", cost.per_million_tokens, earlier.per_million_tokens,
        Wish.LESS, shown,
    )  # fmt: skip


def _remarks(this: ReportNumbers, earlier: ReportNumbers) -> Iterator[str]:
    for name, read in (
        ("model", lambda n: n.status.model),
        ("task", lambda n: n.status.task),
        ("engine", lambda n: ", ".join(sorted({worker.engine for worker in n.workers}))),
        ("number of slots", lambda n: str(sum(worker.slots for worker in n.workers))),
    ):  # fmt: skip
        if read(this) != read(earlier):
            yield f"Another {name}: {read(this) or 'none'} here, {read(earlier) or 'none'} then."
    if not _same_work(this, earlier):
        yield (
            f"Another amount of work, {number(this.tokens)} tokens here, {number(earlier.tokens)} then: time at work, "
            "wait and cost are not judged."
        )
    for numbers, which in ((this, "This batch"), (earlier, "The earlier batch")):
        if not numbers.status.state.is_terminal:
            yield f"{which} has not ended yet: its numbers are those so far."


def _same_work(this: ReportNumbers, earlier: ReportNumbers) -> bool:
    return abs(this.tokens - earlier.tokens) <= _ALIKE * earlier.tokens
