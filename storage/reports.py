"""What people ask of the database: how far a batch is, who works, what failed, and the documents' results.

Batches carry their own counters, so a status costs the same at ten jobs and at a million.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Row, Select, func, select
from sqlalchemy.orm import Session

from storage.columns import db_now
from storage.database import Database
from storage.errors import NoSuchBatch
from storage.states import AttemptOutcome, BatchState, DocumentState, JobState
from storage.tables import Attempt, Batch, Chunk, Document, Job, Result, Worker

_PAGE = 200  # documents read at a time
_RECENT_S = 120.0
_RATE_MEMORY_S = 7 * 24 * 3600.0
_WORKER_SEEN_S = 60.0


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """How far a batch is. Times are seconds since 1970, durations seconds, rates tokens a second.

    `tokens_per_s` counts prompt and completion tokens of the last two minutes, or of the whole batch once it has
    ended; None before anything is measured. `eta_s` is None where it is not known.
    """

    id: str
    state: BatchState
    model: str
    task: str
    metadata: Mapping[str, str]
    priority: int
    documents_total: int
    documents_open: int
    documents_failed: int
    jobs_total: int
    jobs_by_state: Mapping[JobState, int]
    tokens_planned: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    tokens_per_s: float | None
    elapsed_s: float
    eta_s: float | None
    created_at: float
    in_progress_at: float | None
    ended_at: float | None
    error: str | None

    @property
    def jobs_ended(self) -> int:
        """Jobs in a terminal state."""
        return sum(count for state, count in self.jobs_by_state.items() if state.is_terminal)


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker that was seen within the last minute."""

    name: str
    model: str
    engine: str
    slots: int
    running: int
    started_at: float
    seen_at: float


@dataclass(frozen=True, slots=True)
class FailureReason:
    """Failed jobs of one kind, with one of their messages."""

    kind: str
    example: str
    count: int


@dataclass(frozen=True, slots=True)
class WindowResult:
    """The answer of one window of a document (merge strategy none)."""

    position: int
    char_start: int
    char_end: int
    text: str


@dataclass(frozen=True, slots=True)
class DocumentReport:
    """One document and what came of it. `summary` is None until it is done, and where windows answer alone."""

    id: int
    position: int
    name: str
    source: str
    state: DocumentState
    characters: int
    tokens: int
    chunk_count: int
    levels: int
    remarks: Sequence[str]
    error: str | None
    summary: str | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    seconds: float | None
    windows: Sequence[WindowResult] = field(default_factory=tuple)


class Reports:
    """Reads only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def batch(self, batch_id: str) -> BatchStatus:
        """The status of one batch. Raises NoSuchBatch."""
        with self._database.read() as session:
            row = session.execute(_batches().where(Batch.id == batch_id)).one_or_none()
            if row is None:
                raise NoSuchBatch(batch_id)
            return _status(session, row)

    def batches(self, limit: int = 20) -> list[BatchStatus]:
        """The newest batches, newest first."""
        with self._database.read() as session:
            rows = session.execute(_batches().order_by(Batch.created_at.desc()).limit(limit)).all()
            return [_status(session, row) for row in rows]

    def workers(self) -> list[WorkerStatus]:
        """Workers seen within the last minute that have not said they stopped."""
        with self._database.read() as session:
            rows = session.execute(
                select(
                    Worker.name, Worker.model, Worker.engine, Worker.slots, Worker.running, Worker.started_at,
                    Worker.seen_at,
                )
                .where(Worker.stopped_at.is_(None), Worker.seen_at > db_now() - _WORKER_SEEN_S)
                .order_by(Worker.name)
            )  # fmt: skip
            return [WorkerStatus(*row) for row in rows]

    def failures(self, batch_id: str, limit: int = 10) -> list[FailureReason]:
        """Why jobs of the batch failed, the most frequent kind first."""
        count = func.count().label("count")
        with self._database.read() as session:
            rows = session.execute(
                select(func.coalesce(Job.error_kind, "unknown"), func.min(Job.error), count)
                .where(Job.batch_id == batch_id, Job.state == JobState.FAILED)
                .group_by(Job.error_kind)
                .order_by(count.desc())
                .limit(limit)
            )
            return [FailureReason(kind, example or "", jobs) for kind, example, jobs in rows]

    def recent_tokens_per_s(self, model: str) -> float | None:
        """Tokens a second that this model last did here: over its newest thousand attempts of the last week."""
        newest = (
            select(Attempt.started_at, Attempt.finished_at, Attempt.prompt_tokens, Attempt.completion_tokens)
            .where(
                Attempt.model == model,
                Attempt.outcome == AttemptOutcome.SUCCEEDED,
                Attempt.finished_at > db_now() - _RATE_MEMORY_S,
            )
            .order_by(Attempt.finished_at.desc())
            .limit(1000)
            .subquery()
        )
        with self._database.read() as session:
            tokens, first, last = session.execute(
                select(
                    func.sum(newest.c.prompt_tokens + newest.c.completion_tokens),
                    func.min(newest.c.started_at),
                    func.max(newest.c.finished_at),
                )
            ).one()
        return tokens / (last - first) if tokens and last > first else None

    def documents(self, batch_id: str) -> Iterator[DocumentReport]:
        """The batch's documents in input order, read in pages."""
        after = -1
        while True:
            with self._database.read() as session:
                page = _page(session, batch_id, after)
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1].position


def _batches() -> Select[Batch, float]:
    return select(Batch, db_now().label("now"))


def _status(session: Session, row: Row[Batch, float]) -> BatchStatus:
    batch, now = row
    running = session.execute(
        select(func.count()).where(Job.batch_id == batch.id, Job.state == JobState.RUNNING)
    ).scalar_one()
    ended = {
        JobState.SUCCEEDED: batch.jobs_succeeded,
        JobState.FAILED: batch.jobs_failed,
        JobState.CANCELLED: batch.jobs_cancelled,
        JobState.EXPIRED: batch.jobs_expired,
    }
    queued = max(0, batch.jobs_total - running - sum(ended.values()))
    ended_at = batch.completed_at or batch.cancelled_at or batch.expired_at or batch.failed_at
    ended_at = ended_at if batch.state.is_terminal else None
    rate = _tokens_per_s(session, batch, now, ended_at)
    return BatchStatus(
        id=batch.id,
        state=batch.state,
        model=batch.model,
        task=batch.task,
        metadata=batch.notes,
        priority=batch.priority,
        documents_total=batch.documents_total,
        documents_open=batch.documents_open,
        documents_failed=batch.documents_failed,
        jobs_total=batch.jobs_total,
        jobs_by_state={JobState.QUEUED: queued, JobState.RUNNING: running} | ended,
        tokens_planned=batch.tokens_planned,
        prompt_tokens=batch.prompt_tokens,
        cached_tokens=batch.cached_tokens,
        completion_tokens=batch.completion_tokens,
        tokens_per_s=rate,
        elapsed_s=max(0.0, (ended_at or now) - batch.created_at),
        eta_s=None if ended_at else _eta_s(batch, rate),
        created_at=batch.created_at,
        in_progress_at=batch.in_progress_at,
        ended_at=ended_at,
        error=batch.error,
    )


def _tokens_per_s(session: Session, batch: Batch, now: float, ended_at: float | None) -> float | None:
    """Measured: of the last two minutes while it runs, of its whole working time once it has ended."""
    if ended_at is not None:
        began_at = _first_started_at(session, batch.id)
        tokens = batch.prompt_tokens + batch.completion_tokens
        return tokens / (ended_at - began_at) if tokens and began_at and ended_at > began_at else None
    since = max(batch.in_progress_at or batch.created_at, now - _RECENT_S)
    recent, first = session.execute(
        select(
            func.sum(Attempt.prompt_tokens + Attempt.completion_tokens),
            func.min(Attempt.started_at),
        )
        .join(Job, Job.id == Attempt.job_id)
        .where(
            Attempt.model == batch.model,
            Attempt.finished_at >= since,
            Attempt.outcome == AttemptOutcome.SUCCEEDED,
            Job.batch_id == batch.id,
        )
    ).one()
    return recent / (now - max(first, since)) if recent and now > max(first, since) else None


def _first_started_at(session: Session, batch_id: str) -> float | None:
    """When the first job of the first document began: found by indexes, whatever the batch's size."""
    return session.scalar(
        select(func.min(Attempt.started_at))
        .join(Job, Job.id == Attempt.job_id)
        .join(Document, Document.id == Job.document_id)
        .where(Document.batch_id == batch_id, Document.position == 0, Job.level == 0, Job.position == 0)
    )


def _eta_s(batch: Batch, rate: float | None) -> float | None:
    """The jobs left, each taking the tokens that the finished ones took on average, at the measured rate."""
    ended = batch.jobs_succeeded + batch.jobs_failed + batch.jobs_cancelled + batch.jobs_expired
    if not rate or not batch.jobs_succeeded:
        return None
    used = (batch.prompt_tokens + batch.completion_tokens) / batch.jobs_succeeded
    return (batch.jobs_total - ended) * used / rate


def _page(session: Session, batch_id: str, after: int) -> list[DocumentReport]:
    rows = session.execute(
        select(Document, Result.text)
        .outerjoin(Result, (Result.document_id == Document.id) & Result.final)
        .where(Document.batch_id == batch_id, Document.position > after)
        .order_by(Document.position)
        .limit(_PAGE)
    ).all()
    ids = [document.id for document, _ in rows]
    usage = _usage(session, ids)
    alone = [document.id for document, summary in rows if summary is None and document.state is DocumentState.DONE]
    windows = _windows(session, alone)
    return [_report(document, summary, usage.get(document.id), windows[document.id]) for document, summary in rows]


def _usage(session: Session, document_ids: Sequence[int]) -> dict[int, tuple[int, int, int, float]]:
    """By document: prompt, cached and completion tokens, and seconds in an engine, of successful attempts."""
    rows = session.execute(
        select(
            Job.document_id,
            func.sum(Attempt.prompt_tokens),
            func.sum(Attempt.cached_tokens),
            func.sum(Attempt.completion_tokens),
            func.sum(Attempt.prefill_s + Attempt.decode_s),
        )
        .join(Attempt, Attempt.job_id == Job.id)
        .where(Job.document_id.in_(document_ids), Attempt.outcome == AttemptOutcome.SUCCEEDED)
        .group_by(Job.document_id)
    )
    return {
        document_id: (prompt or 0, cached or 0, completion or 0, s or 0.0)
        for document_id, prompt, cached, completion, s in rows
    }


def _windows(session: Session, document_ids: Sequence[int]) -> dict[int, list[WindowResult]]:
    found: dict[int, list[WindowResult]] = defaultdict(list)
    rows = session.execute(
        select(Result.document_id, Result.position, Chunk.char_start, Chunk.char_end, Result.text)
        .join(Chunk, (Chunk.document_id == Result.document_id) & (Chunk.position == Result.position))
        .where(Result.document_id.in_(document_ids), Result.level == 0)
        .order_by(Result.document_id, Result.position)
    )
    for document_id, position, start, end, text in rows:
        found[document_id].append(WindowResult(position, start, end, text))
    return found


def _report(
    document: Document,
    summary: str | None,
    usage: tuple[int, int, int, float] | None,
    windows: Sequence[WindowResult],
) -> DocumentReport:
    prompt, cached, completion, seconds = usage or (0, 0, 0, None)
    return DocumentReport(
        id=document.id,
        position=document.position,
        name=document.name,
        source=document.source,
        state=document.state,
        characters=document.characters,
        tokens=document.tokens,
        chunk_count=document.chunk_count or 0,
        levels=document.level + 1,
        remarks=document.remarks,
        error=document.error,
        summary=summary,
        prompt_tokens=prompt,
        cached_tokens=cached,
        completion_tokens=completion,
        seconds=seconds,
        windows=windows,
    )
