"""What the attempts of a batch measured, added up by outcome, level, worker, document and reason.

Every question is one or two statements that the database adds up, so a batch of a million attempts costs no memory
here. Lists are cut at a limit, the largest first. What has a course in time is in `batch_timeline`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Executable, Select, func, select
from sqlalchemy.orm import InstrumentedAttribute

from docmill.storage.columns import db_now
from docmill.storage.database import Database
from docmill.storage.reads.measurement_types import (
    DocumentTotals,
    FailedAttempts,
    FailedDocument,
    LevelTotals,
    OutcomeTotals,
    SlowJob,
    Span,
    WorkerTotals,
)
from docmill.storage.states import AttemptOutcome, DocumentState, JobState
from docmill.storage.tables import Attempt, Document, Job, Result, Worker

_Column = ColumnElement[Any] | InstrumentedAttribute[Any]


class BatchMeasurements:
    """Reads only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def span(self, batch_id: str) -> Span:
        """The batch's time at work."""
        statement = attempts_of(
            batch_id,
            func.min(Attempt.started_at),
            func.max(func.coalesce(Attempt.finished_at, db_now())),
            db_now(),
        )
        [(began_at, ended_at, now)] = self._rows(statement)
        return Span(began_at or now, ended_at or now)

    def outcomes(self, batch_id: str) -> list[OutcomeTotals]:
        """By outcome, in the order of the enum."""
        statement = attempts_of(
            batch_id,
            Attempt.outcome, func.count(), _sum(Attempt.prompt_tokens), _sum(Attempt.cached_tokens),
            func.count(Attempt.cached_tokens), _sum(Attempt.completion_tokens), _sum(Attempt.energy_j),
            func.count(Attempt.energy_j),
        ).group_by(Attempt.outcome)  # fmt: skip
        found = [OutcomeTotals(*row) for row in self._rows(statement)]
        return sorted(found, key=lambda totals: list(AttemptOutcome).index(totals.outcome))

    def reused_tokens(self, batch_id: str) -> int:
        """Prompt and completion tokens of the answers that were taken from earlier jobs."""
        statement = (
            select(_sum(Result.prompt_tokens + Result.completion_tokens))
            .join(Document, Document.id == Result.document_id)
            .where(Document.batch_id == batch_id, Result.reused_from.is_not(None))
        )
        [(tokens,)] = self._rows(statement)
        return int(tokens)

    def levels(self, batch_id: str) -> list[LevelTotals]:
        """By level, the chunks first."""
        statement = _succeeded(
            batch_id,
            Job.level, func.count(), _sum(Attempt.prompt_tokens), _sum(Attempt.completion_tokens),
            _sum(Attempt.prefill_s), _sum(Attempt.decode_s),
        ).group_by(Job.level).order_by(Job.level)  # fmt: skip
        return [LevelTotals(*row) for row in self._rows(statement)]

    def workers(self, batch_id: str) -> list[WorkerTotals]:
        """By worker, in order of their names. Attempts that took another job's answer do not count."""
        is_done = Attempt.outcome == AttemptOutcome.SUCCEEDED
        parts = (
            attempts_of(
                batch_id,
                Attempt.worker, func.max(Attempt.engine).label("engine"), func.count().label("attempts"),
                func.count().filter(is_done).label("succeeded"),
                _sum(Attempt.prompt_tokens, is_done).label("prompt_tokens"),
                _sum(Attempt.completion_tokens, is_done).label("completion_tokens"),
                func.avg(Attempt.batch_size).label("batch_size"),
                func.coalesce(func.max(Attempt.peak_memory_bytes), 0).label("peak_memory_bytes"),
                func.max(Attempt.peak_vram_bytes).label("peak_vram_bytes"),
                func.min(Attempt.started_at).label("began_at"),
                func.max(func.coalesce(Attempt.finished_at, db_now())).label("ended_at"),
            )
            .where(Attempt.outcome != AttemptOutcome.REUSED)
            .group_by(Attempt.worker)
            .subquery()
        )  # fmt: skip
        columns = list(parts.c)
        statement = (
            select(*columns[:2], func.coalesce(Worker.slots, 0), *columns[2:])
            .outerjoin(Worker, Worker.name == parts.c.worker)
            .order_by(parts.c.worker)
        )
        return [WorkerTotals(*row) for row in self._rows(statement)]

    def largest_documents(self, batch_id: str, limit: int) -> list[DocumentTotals]:
        """The documents that took most tokens, those first."""
        tokens = func.sum(Attempt.prompt_tokens + Attempt.completion_tokens)
        parts = (
            _succeeded(
                batch_id,
                Job.document_id, func.count().label("jobs"), _sum(Attempt.prompt_tokens).label("prompt_tokens"),
                _sum(Attempt.cached_tokens).label("cached_tokens"),
                _sum(Attempt.completion_tokens).label("completion_tokens"),
                (func.max(Attempt.finished_at) - func.min(Attempt.started_at)).label("seconds"),
            )
            .group_by(Job.document_id)
            .order_by(tokens.desc(), Job.document_id)
            .limit(limit)
            .subquery()
        )  # fmt: skip
        statement = (
            select(Document.position, Document.name, Document.state, *list(parts.c)[1:])
            .join(parts, parts.c.document_id == Document.id)
            .order_by((parts.c.prompt_tokens + parts.c.completion_tokens).desc(), Document.position)
        )
        return [DocumentTotals(*row) for row in self._rows(statement)]

    def failed_attempts(self, batch_id: str) -> list[FailedAttempts]:
        """Why attempts failed, the most frequent kind first; those of jobs that succeeded later, too."""
        count = func.count().label("count")
        kind = func.coalesce(Attempt.error_kind, "unknown")
        given_up = func.count().filter(Job.state == JobState.FAILED, Job.epoch == Attempt.epoch)
        statement = (
            attempts_of(batch_id, kind, count, given_up, func.coalesce(func.min(Attempt.error), ""))
            .where(Attempt.outcome == AttemptOutcome.FAILED)
            .group_by(kind)
            .order_by(count.desc(), kind)
        )
        return [FailedAttempts(*row) for row in self._rows(statement)]

    def failed_documents(self, batch_id: str, limit: int) -> list[FailedDocument]:
        """The first documents that failed, in input order."""
        statement = (
            select(Document.name, Document.state, func.coalesce(Document.error, ""))
            .where(Document.batch_id == batch_id, Document.state == DocumentState.FAILED)
            .order_by(Document.position)
            .limit(limit)
        )
        return [FailedDocument(*row) for row in self._rows(statement)]

    def slowest_jobs(self, batch_id: str, limit: int) -> list[SlowJob]:
        """The successful attempts that were longest in the engine, reading and writing."""
        busy_s = Attempt.prefill_s + Attempt.decode_s
        slowest = (
            _succeeded(batch_id, Attempt.job_id, Attempt.epoch, busy_s.label("busy_s"))
            .where(busy_s.is_not(None))
            .order_by(busy_s.desc(), Attempt.job_id)
            .limit(limit)
            .subquery()
        )
        statement = (
            select(
                Attempt.job_id, Document.name, Job.level, Job.position, Attempt.worker, Attempt.epoch,
                Attempt.waited_s, func.coalesce(Attempt.queue_s, 0.0), Attempt.prefill_s, Attempt.decode_s,
                func.coalesce(Attempt.prompt_tokens, 0), func.coalesce(Attempt.completion_tokens, 0),
            )
            .join(slowest, (slowest.c.job_id == Attempt.job_id) & (slowest.c.epoch == Attempt.epoch))
            .join(Job, Job.id == Attempt.job_id)
            .join(Document, Document.id == Job.document_id)
            .order_by(slowest.c.busy_s.desc(), Attempt.job_id)
        )  # fmt: skip
        return [SlowJob(*row) for row in self._rows(statement)]

    def _rows(self, statement: Executable) -> Sequence[Any]:
        with self._database.read() as session:
            return session.execute(statement).all()


def attempts_of(batch_id: str, *columns: Any) -> Select[Any]:
    """Columns of the batch's attempts and their jobs."""
    return select(*columns).select_from(Job).join(Attempt, Attempt.job_id == Job.id).where(Job.batch_id == batch_id)


def _succeeded(batch_id: str, *columns: Any) -> Select[Any]:
    return attempts_of(batch_id, *columns).where(Attempt.outcome == AttemptOutcome.SUCCEEDED)


def _sum(column: _Column, only: ColumnElement[bool] | None = None) -> ColumnElement[Any]:
    """0 for none."""
    total = func.sum(column) if only is None else func.sum(column).filter(only)
    return func.coalesce(total, 0)
