"""What a batch's diagnosis is drawn from: how long its parts took, what its answers were like, what its workers used.

Every question is added up by the database; only a sample of the answers' texts is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from docmill.storage.columns import db_now
from docmill.storage.database import Database
from docmill.storage.errors import NoSuchBatch
from docmill.storage.reads.measurements import attempts_of
from docmill.storage.states import AttemptOutcome
from docmill.storage.tables import Attempt, Batch, Document, Job, Result, Worker, WorkerSample

_TEXTS = 300
_FAILURES = 50
_MAX_WORKERS = 1_000


@dataclass(frozen=True, slots=True)
class WorkerUse:
    """One worker's successful attempts of the batch's first level, and what it used meanwhile.

    `engine_s` is what its attempts spent reading and writing, together; `seconds` from its first to its last one.
    Processor time is in percent of one core, the mean over `samples`; None without samples, or without an engine.
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
        """The share of its slots' time in which they worked, 0 to 1; None where it is not known."""
        available_s = self.slots * self.seconds
        return min(1.0, self.engine_s / available_s) if available_s > 0 else None


@dataclass(frozen=True, slots=True)
class FailureSeen:
    """Attempts that failed with the same words."""

    kind: str
    message: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """Of one batch. Durations are means over its successful attempts, in seconds; sizes tokens or bytes.

    `overhead_s` is what an attempt took beside waiting and working in the engine: the worker's and the database's
    part. `submit_s` is the time from the batch's creation until all its documents were cut and stored. `texts` are
    answers that were computed for it, drawn evenly from all.
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
    failures: Sequence[FailureSeen]
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


def evidence_of(database: Database, batch_id: str) -> Evidence:
    """What is known of the batch now. Raises NoSuchBatch."""
    with database.read() as session:
        batch = session.get(Batch, batch_id)
        if batch is None:
            raise NoSuchBatch(batch_id)
        now: float = session.scalar(select(db_now())) or 0.0
        means = _means(session, batch_id)
        peak = _peak(session, batch_id)
        return Evidence(
            plan=batch.plan,
            model=batch.model,
            jobs=batch.jobs_total,
            succeeded=batch.jobs_succeeded,
            longest_tokens=_longest(session, batch_id),
            waited_s=means.waited_s,
            queue_s=means.queue_s or 0.0,
            engine_s=means.engine_s or 0.0,
            overhead_s=max(0.0, (means.run_s or 0.0) - (means.queue_s or 0.0) - (means.engine_s or 0.0)),
            submit_s=max(0.0, (batch.in_progress_at or now) - batch.created_at),
            work_s=max(0.0, (means.last_at or now) - (batch.in_progress_at or now)),
            finish_reasons=_finish_reasons(session, batch_id),
            failures=_failures(session, batch_id),
            peak_memory_bytes=(peak and peak.memory) or 0,
            peak_vram_bytes=peak and peak.vram,
            peak_worker=(peak and peak.worker) or "",
            empty_texts=_empty_texts(session, batch_id),
            texts=_texts(session, batch_id),
            workers=_workers(session, batch_id),
        )


def _means(session: Session, batch_id: str) -> Any:
    engine_s = Attempt.prefill_s + Attempt.decode_s
    return session.execute(
        attempts_of(
            batch_id,
            func.avg(Attempt.waited_s).label("waited_s"),
            func.avg(Attempt.queue_s).label("queue_s"),
            func.avg(engine_s).label("engine_s"),
            func.avg(Attempt.finished_at - Attempt.started_at).label("run_s"),
            func.max(Attempt.finished_at).label("last_at"),
        ).where(Attempt.outcome == AttemptOutcome.SUCCEEDED)
    ).one()


def _longest(session: Session, batch_id: str) -> int:
    longest = select(func.max(Job.prompt_tokens + Job.max_tokens)).where(Job.batch_id == batch_id)
    return session.scalar(longest) or 0


def _finish_reasons(session: Session, batch_id: str) -> dict[str, int]:
    rows = session.execute(
        select(Result.finish_reason, func.count())
        .join(Document, Document.id == Result.document_id)
        .where(Document.batch_id == batch_id, Result.job_id.is_not(None))
        .group_by(Result.finish_reason)
    )
    return {reason: count for reason, count in rows}  # noqa: C416 - mypy does not see that a row is a pair


def _failures(session: Session, batch_id: str) -> list[FailureSeen]:
    rows = session.execute(
        attempts_of(batch_id, Attempt.error_kind, Attempt.error, func.count())
        .where(Attempt.outcome == AttemptOutcome.FAILED)
        .group_by(Attempt.error_kind, Attempt.error)
        .order_by(func.count().desc())
        .limit(_FAILURES)
    )
    return [FailureSeen(kind or "", message or "", count) for kind, message, count in rows]


def _peak(session: Session, batch_id: str) -> Any:
    return session.execute(
        attempts_of(
            batch_id,
            Attempt.worker,
            func.max(Attempt.peak_memory_bytes).label("memory"),
            func.max(Attempt.peak_vram_bytes).label("vram"),
        )
        .where(Attempt.peak_memory_bytes.is_not(None))
        .group_by(Attempt.worker)
        .order_by(func.max(Attempt.peak_memory_bytes).desc())
        .limit(1)
    ).one_or_none()


def _empty_texts(session: Session, batch_id: str) -> int:
    return session.scalar(
        select(func.count())
        .select_from(Result)
        .join(Document, Document.id == Result.document_id)
        .where(Document.batch_id == batch_id, Result.job_id.is_not(None), func.trim(Result.text) == "")
    ) or 0  # fmt: skip


def _texts(session: Session, batch_id: str) -> Sequence[str]:
    computed = (
        select(Result.id, Result.text)
        .join(Document, Document.id == Result.document_id)
        .where(Document.batch_id == batch_id, Result.job_id.is_not(None), Result.reused_from.is_(None))
    )
    count = session.scalar(select(func.count()).select_from(computed.subquery())) or 0
    step = max(1, count // _TEXTS)
    numbered = computed.add_columns(func.row_number().over(order_by=Result.id).label("number")).subquery()
    return session.scalars(select(numbered.c.text).where(numbered.c.number % step == 0).limit(_TEXTS)).all()


def _workers(session: Session, batch_id: str) -> list[WorkerUse]:
    rows = session.execute(
        attempts_of(
            batch_id,
            Attempt.worker, func.max(Attempt.engine).label("engine"), func.count().label("jobs"),
            func.sum(Attempt.prefill_s + Attempt.decode_s).label("engine_s"),
            func.min(Attempt.started_at).label("began_at"), func.max(Attempt.finished_at).label("ended_at"),
            func.avg(Attempt.batch_size).label("batch_size"),
        )
        .where(Attempt.outcome == AttemptOutcome.SUCCEEDED, Job.level == 0)
        .group_by(Attempt.worker)
        .order_by(Attempt.worker)
        .limit(_MAX_WORKERS)
    ).all()  # fmt: skip
    slots = {worker.name: worker.slots for worker in session.execute(select(Worker.name, Worker.slots))}
    found = []
    for row in rows:
        samples, worker_cpu, engine_cpu = session.execute(
            select(
                func.count(), func.avg(WorkerSample.worker_cpu_percent), func.avg(WorkerSample.engine_cpu_percent)
            ).where(
                WorkerSample.worker == row.worker, WorkerSample.at.between(row.began_at, row.ended_at),
                WorkerSample.running > 0,
            )
        ).one()  # fmt: skip
        found.append(
            WorkerUse(
                row.worker, row.engine, slots.get(row.worker, 0), row.jobs, row.engine_s or 0.0,
                max(0.0, row.ended_at - row.began_at), row.batch_size or 0.0, samples, worker_cpu, engine_cpu,
            )
        )  # fmt: skip
    return found
