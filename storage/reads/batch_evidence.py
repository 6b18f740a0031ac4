"""What the diagnosis of a batch is based on: how long each step took, what the answers were like, what workers used.

The database computes the sums; only a sample of the answers' texts is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, func, select
from sqlalchemy.orm import Session

from docmill.storage.columns import db_now
from docmill.storage.database import Database
from docmill.storage.errors import NoSuchBatch
from docmill.storage.reads.measurements import attempts_of, succeeded_attempts_of, worker_totals
from docmill.storage.states import AttemptOutcome
from docmill.storage.tables import Attempt, Batch, Document, Job, Result, Worker, WorkerSample

_SAMPLED_TEXTS = 300
_MAX_FAILURES = 50
_MAX_WORKERS = 1_000


@dataclass(frozen=True, slots=True)
class WorkerUse:
    """One worker's successful attempts of level 0 (the chunks), and the processor time used while they ran.

    `engine_s` is the sum of their prefill and decode times; `seconds` the time from the first start to the last end.
    Processor time is in percent of one core, the mean of `samples`; None without samples or without an engine process.
    """

    name: str
    engine: str
    slots: int
    jobs: int
    engine_s: float
    seconds: float
    batch_size: float
    samples: int
    worker_cpu_percent: float | None
    engine_cpu_percent: float | None

    @property
    def occupancy(self) -> float | None:
        """The share of the slots' time that was used, 0 to 1; None if the number of slots is not known."""
        available_s = self.slots * self.seconds
        return min(1.0, self.engine_s / available_s) if available_s > 0 else None


@dataclass(frozen=True, slots=True)
class Failures:
    """Attempts that failed with the same message."""

    kind: str
    message: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """The measurements of one batch. Durations are means of its successful attempts in seconds; sizes are in bytes.

    `longest_tokens` is the longest prompt plus its maximum output. `overhead_s` is the part of an attempt outside the
    engine: the worker and the database. `submit_s` is the time from the creation of the batch until its documents were
    stored, `work_s` the time from then on. `texts` is a sample of the answers that were generated for this batch.
    """

    plan: Mapping[str, Any]
    model: str
    jobs: int
    succeeded: int
    longest_tokens: int
    waited_s: float | None
    queue_s: float
    engine_s: float
    overhead_s: float
    submit_s: float
    work_s: float
    finish_reasons: Mapping[str, int]
    failures: Sequence[Failures]
    peak_memory_bytes: int
    peak_vram_bytes: int | None
    peak_worker: str
    empty_texts: int
    texts: Sequence[str]
    workers: Sequence[WorkerUse]

    @property
    def run_s(self) -> float:
        """From a job's claim to its last token."""
        return self.queue_s + self.engine_s

    @property
    def answers(self) -> int:
        """The number of answers of all finish reasons."""
        return sum(self.finish_reasons.values())


def read_evidence(database: Database, batch_id: str) -> Evidence:
    """What is known about the batch now. Raises NoSuchBatch."""
    with database.read() as session:
        batch = session.get(Batch, batch_id)
        if batch is None:
            raise NoSuchBatch(batch_id)
        now: float = session.scalar(select(db_now())) or 0.0
        means = _means(session, batch_id)
        queue_s, engine_s = means.queue_s or 0.0, means.engine_s or 0.0
        totals = worker_totals(session, batch_id)
        largest = max(totals, key=lambda worker: worker.peak_memory_bytes, default=None)
        reasons = session.execute(
            _answers_of(batch_id, Result.finish_reason, func.count(), func.count().filter(func.trim(Result.text) == ""))
            .group_by(Result.finish_reason)
        ).all()  # fmt: skip
        return Evidence(
            plan=batch.plan,
            model=batch.model,
            jobs=batch.jobs_total,
            succeeded=batch.jobs_succeeded,
            longest_tokens=session.scalar(
                select(func.max(Job.prompt_tokens + Job.max_tokens)).where(Job.batch_id == batch_id)
            ) or 0,
            waited_s=means.waited_s,
            queue_s=queue_s,
            engine_s=engine_s,
            overhead_s=max(0.0, (means.run_s or 0.0) - queue_s - engine_s),
            submit_s=max(0.0, (batch.in_progress_at or now) - batch.created_at),
            work_s=max(0.0, (means.last_at or now) - (batch.in_progress_at or now)),
            finish_reasons={reason: count for reason, count, _ in reasons},
            failures=_failures(session, batch_id),
            peak_memory_bytes=largest.peak_memory_bytes if largest else 0,
            peak_vram_bytes=largest.peak_vram_bytes if largest else None,
            peak_worker=largest.name if largest else "",
            empty_texts=sum(empty for _, _, empty in reasons),
            texts=_sampled_texts(session, batch_id),
            workers=_workers(session, batch_id),
        )  # fmt: skip


def _means(session: Session, batch_id: str) -> Row[Any]:
    return session.execute(
        succeeded_attempts_of(
            batch_id,
            func.avg(Attempt.waited_s).label("waited_s"),
            func.avg(Attempt.queue_s).label("queue_s"),
            func.avg(Attempt.prefill_s + Attempt.decode_s).label("engine_s"),
            func.avg(Attempt.finished_at - Attempt.started_at).label("run_s"),
            func.max(Attempt.finished_at).label("last_at"),
        )
    ).one()


def _failures(session: Session, batch_id: str) -> list[Failures]:
    rows = session.execute(
        attempts_of(batch_id, func.coalesce(Attempt.error_kind, ""), func.coalesce(Attempt.error, ""), func.count())
        .where(Attempt.outcome == AttemptOutcome.FAILED)
        .group_by(Attempt.error_kind, Attempt.error)
        .order_by(func.count().desc())
        .limit(_MAX_FAILURES)
    )
    return [Failures(*row) for row in rows]


def _answers_of(batch_id: str, *columns: Any) -> Select[Any]:
    """Columns of the results of the batch's jobs."""
    return (
        select(*columns)
        .select_from(Result)
        .join(Document, Document.id == Result.document_id)
        .where(Document.batch_id == batch_id, Result.job_id.is_not(None))
    )


def _sampled_texts(session: Session, batch_id: str) -> Sequence[str]:
    """At most `_SAMPLED_TEXTS` generated texts, spread evenly over the batch."""
    generated = _answers_of(batch_id, Result.text).where(Result.reused_from.is_(None))
    count = session.scalar(select(func.count()).select_from(generated.subquery())) or 0
    step = max(1, count // _SAMPLED_TEXTS)
    numbered = generated.add_columns(func.row_number().over(order_by=Result.id).label("number")).subquery()
    return session.scalars(select(numbered.c.text).where(numbered.c.number % step == 0).limit(_SAMPLED_TEXTS)).all()


def _workers(session: Session, batch_id: str) -> list[WorkerUse]:
    began_at, ended_at = func.min(Attempt.started_at), func.max(Attempt.finished_at)
    rows = session.execute(
        succeeded_attempts_of(
            batch_id,
            Attempt.worker, func.max(Attempt.engine).label("engine"),
            func.coalesce(func.max(Worker.slots), 0).label("slots"), func.count().label("jobs"),
            func.coalesce(func.sum(Attempt.prefill_s + Attempt.decode_s), 0.0).label("engine_s"),
            (ended_at - began_at).label("seconds"),
            func.coalesce(func.avg(Attempt.batch_size), 0.0).label("batch_size"),
            began_at.label("began_at"), ended_at.label("ended_at"),
        )
        .outerjoin(Worker, Worker.name == Attempt.worker)
        .where(Job.level == 0)
        .group_by(Attempt.worker)
        .order_by(Attempt.worker)
        .limit(_MAX_WORKERS)
    ).all()  # fmt: skip
    used = ((*row[:-2], *_cpu(session, row.worker, row.began_at, row.ended_at)) for row in rows)
    return [WorkerUse(*values) for values in used]


def _cpu(session: Session, worker: str, began_at: float, ended_at: float) -> Row[Any]:
    """The number of samples while the worker had jobs, and the means of its own and its engine's processor time."""
    return session.execute(
        select(
            func.count(), func.avg(WorkerSample.worker_cpu_percent), func.avg(WorkerSample.engine_cpu_percent)
        ).where(
            WorkerSample.worker == worker, WorkerSample.at.between(began_at, ended_at), WorkerSample.running > 0
        )
    ).one()  # fmt: skip
