"""What the attempts of a batch measured, added up by outcome, level, worker, document and failure.

The database computes the sums, so that a batch of a million attempts needs no memory here. Lists have a limit, and
the largest come first. Times are seconds since 1970, durations seconds, sizes bytes. `batch_timeline` has what
changes over time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, func, select
from sqlalchemy.orm import Session

from docmill.storage.columns import db_now
from docmill.storage.states import AttemptOutcome, DocumentState, JobState
from docmill.storage.tables import Attempt, Document, Job, Result, Worker


def attempts_of(batch_id: str, *columns: Any) -> Select[Any]:
    """Columns of the batch's attempts and their jobs."""
    return select(*columns).select_from(Job).join(Attempt, Attempt.job_id == Job.id).where(Job.batch_id == batch_id)


def succeeded_attempts_of(batch_id: str, *columns: Any) -> Select[Any]:
    """Columns of the batch's successful attempts and their jobs."""
    return attempts_of(batch_id, *columns).where(Attempt.outcome == AttemptOutcome.SUCCEEDED)


def _sum(column: Any, only: ColumnElement[bool] | None = None) -> ColumnElement[Any]:
    """The sum, with the name of the column; 0 if there are no rows."""
    total = func.sum(column)
    return func.coalesce(total if only is None else total.filter(only), 0).label(getattr(column, "key", None))


@dataclass(frozen=True, slots=True)
class Span:
    """From the start of the batch's first attempt to the end of its last one, or to now while one runs.

    Without attempts, both are now.
    """

    began_at: float
    ended_at: float

    @property
    def seconds(self) -> float:
        return max(0.0, self.ended_at - self.began_at)


def read_span(session: Session, batch_id: str) -> Span:
    """The working time of the batch."""
    began_at, ended_at, now = session.execute(
        attempts_of(
            batch_id, func.min(Attempt.started_at), func.max(func.coalesce(Attempt.finished_at, db_now())), db_now()
        )
    ).one()
    return Span(began_at or now, ended_at or now)


@dataclass(frozen=True, slots=True)
class OutcomeTotals:
    """The attempts with one outcome. `energy_j`: the sum over the `energy_measured` attempts that measured it."""

    outcome: AttemptOutcome
    attempts: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    cached_measured: int = 0
    completion_tokens: int = 0
    energy_j: float = 0.0
    energy_measured: int = 0


def outcome_totals(session: Session, batch_id: str) -> list[OutcomeTotals]:
    """By outcome, in the order of the enum."""
    statement = attempts_of(
        batch_id,
        Attempt.outcome, func.count(), _sum(Attempt.prompt_tokens), _sum(Attempt.cached_tokens),
        func.count(Attempt.cached_tokens), _sum(Attempt.completion_tokens), _sum(Attempt.energy_j),
        func.count(Attempt.energy_j),
    ).group_by(Attempt.outcome)  # fmt: skip
    found = {row.outcome: OutcomeTotals(*row) for row in session.execute(statement)}
    return [found[outcome] for outcome in AttemptOutcome if outcome in found]


def reused_tokens(session: Session, batch_id: str) -> int:
    """Prompt and completion tokens of the results that were reused from identical jobs."""
    statement = (
        select(_sum(Result.prompt_tokens + Result.completion_tokens))
        .join(Document, Document.id == Result.document_id)
        .where(Document.batch_id == batch_id, Result.reused_from.is_not(None))
    )
    return int(session.execute(statement).scalar_one())


def level_totals(session: Session, batch_id: str) -> Sequence[Row[Any]]:
    """The successful attempts by merge level; level 0 are the chunks."""
    statement = succeeded_attempts_of(
        batch_id,
        Job.level, func.count().label("jobs"), _sum(Attempt.prompt_tokens), _sum(Attempt.completion_tokens),
        _sum(Attempt.prefill_s), _sum(Attempt.decode_s),
    ).group_by(Job.level).order_by(Job.level)  # fmt: skip
    return session.execute(statement).all()


@dataclass(frozen=True, slots=True)
class WorkerTotals:
    """The attempts of one worker. `slots` is 0 if the worker has no row any more."""

    name: str
    engine: str
    slots: int
    attempts: int
    succeeded: int
    prompt_tokens: int
    completion_tokens: int
    batch_size: float | None
    peak_memory_bytes: int
    peak_vram_bytes: int | None
    began_at: float
    ended_at: float

    @property
    def seconds(self) -> float:
        """From its first claim in the batch to the end of its last attempt."""
        return max(0.0, self.ended_at - self.began_at)


def worker_totals(session: Session, batch_id: str) -> list[WorkerTotals]:
    """By worker, sorted by name, without the attempts that reused the result of another job."""
    is_done = Attempt.outcome == AttemptOutcome.SUCCEEDED
    statement = (
        attempts_of(
            batch_id,
            Attempt.worker, func.max(Attempt.engine), func.coalesce(func.max(Worker.slots), 0),
            func.count(), func.count().filter(is_done),
            _sum(Attempt.prompt_tokens, is_done), _sum(Attempt.completion_tokens, is_done),
            func.avg(Attempt.batch_size),
            func.coalesce(func.max(Attempt.peak_memory_bytes), 0), func.max(Attempt.peak_vram_bytes),
            func.min(Attempt.started_at), func.max(func.coalesce(Attempt.finished_at, db_now())),
        )
        .outerjoin(Worker, Worker.name == Attempt.worker)
        .where(Attempt.outcome != AttemptOutcome.REUSED)
        .group_by(Attempt.worker)
        .order_by(Attempt.worker)
    )  # fmt: skip
    return [WorkerTotals(*row) for row in session.execute(statement)]


def largest_documents(session: Session, batch_id: str, limit: int) -> Sequence[Row[Any]]:
    """The successful attempts of the documents with the most tokens; `seconds` from the first start to the last end."""
    tokens = func.sum(Attempt.prompt_tokens + Attempt.completion_tokens)
    statement = (
        succeeded_attempts_of(
            batch_id,
            Document.position, Document.name, Document.state, func.count().label("jobs"),
            _sum(Attempt.prompt_tokens), _sum(Attempt.cached_tokens), _sum(Attempt.completion_tokens),
            (func.max(Attempt.finished_at) - func.min(Attempt.started_at)).label("seconds"),
        )
        .join(Document, Document.id == Job.document_id)
        .group_by(Document.id)
        .order_by(tokens.desc(), Document.id)
        .limit(limit)
    )  # fmt: skip
    return session.execute(statement).all()


def failed_attempts(session: Session, batch_id: str) -> Sequence[Row[Any]]:
    """Failed attempts by reason, the most frequent first; `jobs_given_up` did not succeed in a later attempt either."""
    kind, count = func.coalesce(Attempt.error_kind, "unknown"), func.count()
    statement = (
        attempts_of(
            batch_id,
            kind.label("kind"),
            count.label("attempts"),
            count.filter(Job.state == JobState.FAILED, Job.epoch == Attempt.epoch).label("jobs_given_up"),
            func.coalesce(func.min(Attempt.error), "").label("example"),
        )
        .where(Attempt.outcome == AttemptOutcome.FAILED)
        .group_by(kind)
        .order_by(count.desc(), kind)
    )
    return session.execute(statement).all()


def failed_documents(session: Session, batch_id: str, limit: int) -> Sequence[Row[Any]]:
    """The first documents that failed, in input order."""
    columns: tuple[Any, ...] = (Document.name, Document.state, func.coalesce(Document.error, "").label("error"))
    statement = (
        select(*columns)
        .where(Document.batch_id == batch_id, Document.state == DocumentState.FAILED)
        .order_by(Document.position)
        .limit(limit)
    )
    return session.execute(statement).all()


def slowest_jobs(session: Session, batch_id: str, limit: int) -> Sequence[Row[Any]]:
    """The successful attempts with the longest prefill and decode together."""
    engine_s = Attempt.prefill_s + Attempt.decode_s
    statement = (
        succeeded_attempts_of(
            batch_id,
            Attempt.job_id, Document.name.label("document"), Job.level, Job.position, Attempt.worker,
            Attempt.epoch.label("attempt"), Attempt.waited_s, func.coalesce(Attempt.queue_s, 0.0).label("queue_s"),
            Attempt.prefill_s, Attempt.decode_s, func.coalesce(Attempt.prompt_tokens, 0).label("prompt_tokens"),
            func.coalesce(Attempt.completion_tokens, 0).label("completion_tokens"),
        )
        .join(Document, Document.id == Job.document_id)
        .where(engine_s.is_not(None))
        .order_by(engine_s.desc(), Attempt.job_id)
        .limit(limit)
    )  # fmt: skip
    return session.execute(statement).all()
