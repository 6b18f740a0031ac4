"""What a batch measured over time: distributions of durations, attempts in an engine, samples of its workers.

Apart from the attempts, which are streamed, nothing grows with the batch: percentiles are read at their ranks, and
samples are added up in buckets of time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Integer, Row, cast, func, select
from sqlalchemy.orm import Session

from docmill.storage.reads.measurements import Span, attempts_of, succeeded_attempts_of
from docmill.storage.states import AttemptOutcome
from docmill.storage.tables import Attempt, WorkerSample

_ROWS = 10_000


class Duration(StrEnum):
    """A part of a successful attempt: waiting for a claim, waiting in the engine, prefill, decode; RUN is the time
    from the claim to the stored result."""

    WAIT = "wait"
    QUEUE = "queue"
    PREFILL = "prefill"
    DECODE = "decode"
    RUN = "run"


_COLUMNS: dict[Duration, Any] = {
    Duration.WAIT: Attempt.waited_s,
    Duration.QUEUE: Attempt.queue_s,
    Duration.PREFILL: Attempt.prefill_s,
    Duration.DECODE: Attempt.decode_s,
    Duration.RUN: Attempt.finished_at - Attempt.started_at,
}


@dataclass(frozen=True, slots=True)
class Distribution:
    """How long something took, over `count` attempts, in seconds.

    `values` are the durations at `shares` (0 to 1) of the sorted attempts, interpolated linearly between two
    neighbours, as by Postgres' percentile_cont.
    """

    count: int
    mean: float
    shares: Sequence[float]
    values: Sequence[float]

    def at(self, share: float) -> float:
        """The percentile at one of `shares`."""
        return self.values[self.shares.index(share)]


def read_distribution(
    session: Session, batch_id: str, duration: Duration, shares: Sequence[float]
) -> Distribution | None:
    """The duration's values at `shares`; None if no successful attempt has it."""
    column = _COLUMNS[duration]
    measured = succeeded_attempts_of(batch_id).where(column.is_not(None))
    count, mean = session.execute(measured.add_columns(func.count(), func.avg(column))).one()
    if not count:
        return None
    places = [share * (count - 1) for share in shares]
    ranks = {rank for place in places for rank in (math.floor(place), math.ceil(place))}
    ranked = measured.add_columns(
        (func.row_number().over(order_by=column) - 1).label("rank"), column.label("value")
    ).subquery()
    rows = session.execute(select(ranked.c.rank, ranked.c.value).where(ranked.c.rank.in_(sorted(ranks))))
    at: dict[int, float] = {rank: value for rank, value in rows}  # noqa: C416 - mypy does not see that a row is a pair
    values = [at[math.floor(p)] + (at[math.ceil(p)] - at[math.floor(p)]) * (p - math.floor(p)) for p in places]
    return Distribution(count, mean, tuple(shares), tuple(values))


def attempts_in_engines(session: Session, batch_id: str) -> Iterator[Row[Any]]:
    """The attempts that an engine worked on, streamed; not those of lost workers, nor those that reused a result."""
    statement = attempts_of(
        batch_id,
        Attempt.outcome, Attempt.started_at, Attempt.finished_at, Attempt.queue_s, Attempt.prefill_s, Attempt.decode_s,
        Attempt.prompt_tokens, Attempt.completion_tokens,
    ).where(Attempt.outcome.not_in((AttemptOutcome.REUSED, AttemptOutcome.LOST)))  # fmt: skip
    yield from session.execute(statement.execution_options(yield_per=_ROWS))


@dataclass(frozen=True, slots=True)
class WorkerUsage:
    """What a worker used around one moment, `at_s` seconds after the start: the largest memory, means of the rest."""

    at_s: float
    worker: str
    samples: int
    rss_bytes: int
    vram_bytes: int | None
    cpu_percent: float
    gpu_percent: float | None


def read_usage(session: Session, workers: Sequence[str], span: Span, moments: int) -> list[WorkerUsage]:
    """The workers' samples within the span, each counted at the nearest of `moments` moments; by moment and worker."""
    step_s = span.seconds / moments
    if not step_s:
        return []
    moment = cast(func.round((WorkerSample.at - span.began_at) / step_s), Integer).label("moment")
    cpu = func.coalesce(WorkerSample.worker_cpu_percent, 0.0) + func.coalesce(WorkerSample.engine_cpu_percent, 0.0)
    statement = (
        select(
            moment, WorkerSample.worker, func.count(), func.max(WorkerSample.rss_bytes),
            func.max(WorkerSample.vram_bytes), func.avg(cpu), func.avg(WorkerSample.gpu_percent),
        )
        .where(WorkerSample.worker.in_(workers), WorkerSample.at.between(span.began_at, span.ended_at))
        .group_by("moment", WorkerSample.worker)
        .order_by("moment", WorkerSample.worker)
    )  # fmt: skip
    return [WorkerUsage(number * step_s, *rest) for number, *rest in session.execute(statement)]
