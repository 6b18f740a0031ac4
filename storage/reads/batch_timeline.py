"""What a batch measured over time: distributions of durations, the changes of what goes on, samples of its workers.

Nothing here grows with the batch: percentiles are read at their ranks, changes and samples are added up in buckets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Integer, case, func, literal, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.functions import FunctionElement

from docmill.storage.columns import greatest
from docmill.storage.database import Database
from docmill.storage.reads.measurement_types import Span
from docmill.storage.reads.measurements import attempts_of
from docmill.storage.states import AttemptOutcome
from docmill.storage.tables import Attempt, WorkerSample

_SHORTEST_S = 0.001  # what an engine says took no time is drawn as this long
_NOT_IN_AN_ENGINE = (AttemptOutcome.REUSED, AttemptOutcome.LOST)


class Duration(StrEnum):
    """A part of a successful attempt: waiting to be claimed, waiting in the engine, reading, writing; and the time
    from the claim to the stored result."""

    WAIT = "wait"
    QUEUE = "queue"
    PREFILL = "prefill"
    DECODE = "decode"
    RUN = "run"


_COLUMNS: Mapping[Duration, ColumnElement[Any]] = {
    Duration.WAIT: Attempt.waited_s.expression,
    Duration.QUEUE: Attempt.queue_s.expression,
    Duration.PREFILL: Attempt.prefill_s.expression,
    Duration.DECODE: Attempt.decode_s.expression,
    Duration.RUN: (Attempt.finished_at - Attempt.started_at).expression,
}


@dataclass(frozen=True, slots=True)
class Distribution:
    """How long something took, over `count` attempts, in seconds.

    `values` are the values at `shares` of the sorted attempts, 0 to 1, linear between two neighbours (Postgres'
    percentile_cont, `statistics.quantiles(..., method="inclusive")`).
    """

    count: int
    mean: float
    shares: Sequence[float]
    values: Sequence[float]

    def at(self, share: float) -> float:
        """The percentile at one of `shares`."""
        return self.values[self.shares.index(share)]


@dataclass(frozen=True, slots=True)
class Change:
    """What began less what ended within one bucket of time, and the same weighted with when, in seconds since the
    span's begin. `running` counts attempts in an engine; the tokens are rates, tokens a second.
    """

    bucket: int
    running: float
    running_at: float
    read: float
    read_at: float
    written: float
    written_at: float


@dataclass(frozen=True, slots=True)
class SamplesOfWorker:
    """A worker's samples within one bucket: memory is the largest, everything else the mean."""

    bucket: int
    worker: str
    samples: int
    rss_bytes: int
    vram_bytes: int | None
    cpu_percent: float
    gpu_percent: float | None
    power_w: float | None


class BatchTimeline:
    """Reads only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def distribution(self, batch_id: str, duration: Duration, shares: Sequence[float]) -> Distribution | None:
        """The duration's values at `shares`; None where no successful attempt has it."""
        column = _COLUMNS[duration]
        measured = attempts_of(batch_id).where(Attempt.outcome == AttemptOutcome.SUCCEEDED, column.is_not(None))
        ranked = measured.add_columns(
            column.label("value"), func.row_number().over(order_by=column).label("rank")
        ).subquery()
        with self._database.read() as session:
            count, mean = session.execute(measured.add_columns(func.count(), func.avg(column))).one()
            if not count:
                return None
            places = [share * (count - 1) for share in shares]
            ranks = {rank + 1 for place in places for rank in (math.floor(place), math.ceil(place))}
            rows = session.execute(select(ranked.c.rank, ranked.c.value).where(ranked.c.rank.in_(sorted(ranks))))
            at = {rank - 1: value for rank, value in rows}
        return Distribution(count, mean, tuple(shares), tuple(_between(at, place) for place in places))

    def changes(self, batch_id: str, span: Span, buckets: int) -> list[Change]:
        """Where attempts began and ended to run, read and write, added up in `buckets` of equal length.

        They are enough to know the exact mean of each in every bucket. An attempt that runs still ends at the span's
        end; one whose worker was lost, or that took another's answer, is in none.
        """
        read_s, written_s = greatest(Attempt.prefill_s, _SHORTEST_S), greatest(Attempt.decode_s, _SHORTEST_S)
        reading = _of_successful(Attempt.prompt_tokens / read_s)
        writing = _of_successful(Attempt.completion_tokens / written_s)
        entered = Attempt.started_at + func.coalesce(Attempt.queue_s, 0.0) - span.began_at
        first = entered + func.coalesce(read_s, 0.0)
        stopped = func.coalesce(Attempt.finished_at, span.ended_at) - span.began_at
        left = _of_successful(entered + read_s + written_s, otherwise=stopped)
        none, one = literal(0.0), literal(1.0)
        events = (
            (entered, one, reading, none),
            (first, none, -reading, writing),
            (left, -one, none, -writing),
        )
        found: list[Change] = []
        with self._database.read() as session:
            for at, *weights in events:
                number = bucket(at, span, buckets)
                sums = [total for weight in weights for total in (func.sum(weight), func.sum(weight * at))]
                rows = session.execute(
                    attempts_of(batch_id, number.label("number"), *sums)
                    .where(Attempt.outcome.not_in(_NOT_IN_AN_ENGINE))
                    .group_by("number")
                )
                found += [Change(*row) for row in rows]
        return found

    def samples(self, workers: Sequence[str], span: Span, buckets: int) -> list[SamplesOfWorker]:
        """What these workers used in the span, by bucket and worker, in that order."""
        number = bucket(WorkerSample.at - span.began_at, span, buckets).label("number")
        cpu = func.coalesce(WorkerSample.worker_cpu_percent, 0.0) + func.coalesce(WorkerSample.engine_cpu_percent, 0.0)
        statement = (
            select(
                number, WorkerSample.worker, func.count(), func.max(WorkerSample.rss_bytes),
                func.max(WorkerSample.vram_bytes), func.avg(cpu), func.avg(WorkerSample.gpu_percent),
                func.avg(WorkerSample.power_w),
            )
            .where(
                WorkerSample.worker.in_(workers),
                WorkerSample.at >= span.began_at,
                WorkerSample.at <= span.ended_at,
            )
            .group_by("number", WorkerSample.worker)
            .order_by("number", WorkerSample.worker)
        )  # fmt: skip
        with self._database.read() as session:
            return [SamplesOfWorker(*row) for row in session.execute(statement)]


def bucket(at: ColumnElement[float], span: Span, buckets: int) -> ColumnElement[int]:
    """The number of the bucket that `at`, seconds since the span's begin, lies in: 0 to `buckets` - 1."""
    number = whole(at * (buckets / max(span.seconds, _SHORTEST_S)))
    return case((number < 0, 0), (number >= buckets, buckets - 1), else_=number)


class whole(FunctionElement[int]):  # noqa: N801 - reads as the SQL function it is
    """A number without its fraction. A bare cast rounds on Postgres and cuts on SQLite."""

    type = Integer()
    inherit_cache = True


@compiles(whole, "sqlite")
def _whole_sqlite(element: whole, compiler: Any, **kw: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **kw)} AS INTEGER)"


@compiles(whole, "postgresql")
def _whole_postgresql(element: whole, compiler: Any, **kw: Any) -> str:
    return f"CAST(trunc({compiler.process(element.clauses, **kw)}) AS integer)"


def _of_successful(value: ColumnElement[Any], otherwise: ColumnElement[Any] | float = 0.0) -> ColumnElement[float]:
    """A successful attempt's value; `otherwise` for others and where it was not measured."""
    return func.coalesce(case((Attempt.outcome == AttemptOutcome.SUCCEEDED, value)), otherwise)


def _between(at: Mapping[int, float], place: float) -> float:
    """The value at a place between two ranks, counted from 0."""
    low, high = math.floor(place), math.ceil(place)
    return at[low] + (at[high] - at[low]) * (place - low)
