"""The tables. Times are seconds since 1970 by the database's clock, durations seconds, sizes bytes.

Rows are written only by the transactions of this package; people read them with SQL.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ForeignKey, Index, Integer, MetaData, String, UniqueConstraint
from sqlalchemy import text as sql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from docmill.storage.attempt_metrics import METRIC_TYPES
from docmill.storage.columns import BigId, Epoch, Json, SafeText, TokenIds, state_column
from docmill.storage.states import AttemptOutcome, BatchState, DocumentState, JobState

# Written so that SQLite, too, can tell from a query's conditions that it may use the index.
_LEVEL_ENDED = sql("open_jobs = 0 AND finished_at IS NULL AND chunk_count IS NOT NULL")


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Batch(Base):
    """What a user submitted. The counters are kept by the transactions that change jobs and documents.

    The tokens are those computed for it: what a reused result once cost is not counted again. `submitter` is the
    process that writes its documents, while it is `validating`.
    """

    __tablename__ = "batches"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    submission_key: Mapped[str] = mapped_column(String(64))
    idempotency_key: Mapped[str | None] = mapped_column(String(200))
    submitter: Mapped[str | None] = mapped_column(String(200))
    submitter_seen_at: Mapped[float | None] = mapped_column(Epoch)
    state: Mapped[BatchState] = mapped_column(state_column(BatchState))
    model: Mapped[str] = mapped_column(String(200))
    task: Mapped[str] = mapped_column(String(200))
    plan: Mapped[dict[str, Any]] = mapped_column(Json)
    notes: Mapped[dict[str, str]] = mapped_column("metadata", Json)
    priority: Mapped[int]
    reuse: Mapped[bool] = mapped_column(default=True)
    error: Mapped[str | None] = mapped_column(SafeText)

    documents_total: Mapped[int] = mapped_column(default=0)
    documents_open: Mapped[int] = mapped_column(default=0)
    documents_failed: Mapped[int] = mapped_column(default=0)
    jobs_total: Mapped[int] = mapped_column(default=0)
    jobs_succeeded: Mapped[int] = mapped_column(default=0)
    jobs_failed: Mapped[int] = mapped_column(default=0)
    jobs_cancelled: Mapped[int] = mapped_column(default=0)
    jobs_expired: Mapped[int] = mapped_column(default=0)
    jobs_reused: Mapped[int] = mapped_column(default=0)
    tokens_planned: Mapped[int] = mapped_column(BigId, default=0)
    prompt_tokens: Mapped[int] = mapped_column(BigId, default=0)
    cached_tokens: Mapped[int] = mapped_column(BigId, default=0)
    completion_tokens: Mapped[int] = mapped_column(BigId, default=0)

    created_at: Mapped[float] = mapped_column(Epoch)
    in_progress_at: Mapped[float | None] = mapped_column(Epoch)
    expires_at: Mapped[float | None] = mapped_column(Epoch)
    finalizing_at: Mapped[float | None] = mapped_column(Epoch)
    completed_at: Mapped[float | None] = mapped_column(Epoch)
    failed_at: Mapped[float | None] = mapped_column(Epoch)
    expired_at: Mapped[float | None] = mapped_column(Epoch)
    cancelling_at: Mapped[float | None] = mapped_column(Epoch)
    cancelled_at: Mapped[float | None] = mapped_column(Epoch)
    paused_at: Mapped[float | None] = mapped_column(Epoch)

    __table_args__ = (
        Index("uq_batches_idempotency_key", "idempotency_key", unique=True),
        Index("ix_batches_state_priority_created_at", "state", "priority", "created_at"),
        Index("ix_batches_submission_key", "submission_key", "created_at"),
        Index("ix_batches_created_at", "created_at"),
    )


class Document(Base):
    """One input text. `chunk_count` stays NULL until all of its chunks and first jobs are written.

    `content_hash` is the text's SHA-256; `identity` that of where it came from and its text: a repeated submission
    knows its documents by it.
    """

    __tablename__ = "documents"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    batch_id: Mapped[str] = mapped_column(ForeignKey("batches.id"))
    position: Mapped[int]
    name: Mapped[str] = mapped_column(SafeText)
    source: Mapped[str] = mapped_column(SafeText)
    content_hash: Mapped[str] = mapped_column(String(64))
    identity: Mapped[str] = mapped_column(String(64))
    state: Mapped[DocumentState] = mapped_column(state_column(DocumentState))
    characters: Mapped[int] = mapped_column(BigId, default=0)
    tokens: Mapped[int] = mapped_column(BigId, default=0)
    chunk_count: Mapped[int | None]
    level: Mapped[int] = mapped_column(default=0)
    open_jobs: Mapped[int] = mapped_column(default=0)
    failed_jobs: Mapped[int] = mapped_column(default=0)
    remarks: Mapped[list[str]] = mapped_column(Json, default=list)
    error: Mapped[str | None] = mapped_column(SafeText)
    created_at: Mapped[float] = mapped_column(Epoch)
    finished_at: Mapped[float | None] = mapped_column(Epoch)

    __table_args__ = (
        UniqueConstraint("batch_id", "position"),
        UniqueConstraint("batch_id", "identity"),
        Index(
            "ix_documents_level_ended",
            "batch_id",
            sqlite_where=_LEVEL_ENDED,
            postgresql_where=_LEVEL_ENDED,
        ),
    )


class Chunk(Base):
    """A span of a document: characters `char_start` to `char_end` of its loaded text, `tokens` long by itself."""

    __tablename__ = "chunks"

    document_id: Mapped[int] = mapped_column(ForeignKey("documents.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    char_start: Mapped[int] = mapped_column(BigId)
    char_end: Mapped[int] = mapped_column(BigId)
    tokens: Mapped[int]
    text: Mapped[str] = mapped_column(SafeText)


class Job(Base):
    """One stored prompt with everything an engine needs.

    `epoch` counts the claims and fences stale ones. A job of level 0 reads the chunk of its position; a later one
    the results `first_input` to `last_input` of the level below. Jobs of equal `reuse_key` and `max_tokens` have the
    same answer; NULL: every run may say something else. `deaths` counts engine processes that died of it.
    """

    __tablename__ = "jobs"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    batch_id: Mapped[str] = mapped_column(ForeignKey("batches.id"))
    document_id: Mapped[int] = mapped_column(ForeignKey("documents.id"))
    level: Mapped[int]
    position: Mapped[int]
    first_input: Mapped[int]
    last_input: Mapped[int]
    model: Mapped[str] = mapped_column(String(200))
    priority: Mapped[int]
    prompt_ids: Mapped[Sequence[int]] = mapped_column(TokenIds)
    prompt_tokens: Mapped[int]
    max_tokens: Mapped[int]
    sampling: Mapped[dict[str, Any]] = mapped_column(Json)
    stop_token_ids: Mapped[list[int]] = mapped_column(Json)
    reuse_key: Mapped[str | None] = mapped_column(String(32))

    state: Mapped[JobState] = mapped_column(state_column(JobState))
    epoch: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    losses: Mapped[int] = mapped_column(default=0)
    deaths: Mapped[int] = mapped_column(default=0)
    owner: Mapped[str | None] = mapped_column(String(200))
    lease_until: Mapped[float | None] = mapped_column(Epoch)
    not_before: Mapped[float] = mapped_column(Epoch, default=0.0)
    published_at: Mapped[float | None] = mapped_column(Epoch)
    publishes: Mapped[int] = mapped_column(default=0)
    error_kind: Mapped[str | None] = mapped_column(String(80))
    error: Mapped[str | None] = mapped_column(SafeText)
    created_at: Mapped[float] = mapped_column(Epoch)
    finished_at: Mapped[float | None] = mapped_column(Epoch)

    __table_args__ = (
        UniqueConstraint("document_id", "level", "position"),
        Index(
            "ix_jobs_unpublished",
            "batch_id",
            "priority",
            "id",
            sqlite_where=sql("state = 'queued' AND published_at IS NULL"),
            postgresql_where=sql("state = 'queued' AND published_at IS NULL"),
        ),
        Index(
            "ix_jobs_published",
            "model",
            "published_at",
            sqlite_where=sql("state = 'queued' AND published_at IS NOT NULL"),
            postgresql_where=sql("state = 'queued' AND published_at IS NOT NULL"),
        ),
        Index(
            "ix_jobs_leased",
            "lease_until",
            sqlite_where=sql("state = 'running'"),
            postgresql_where=sql("state = 'running'"),
        ),
        Index("ix_jobs_batch_id_state_id", "batch_id", "state", "id"),
        Index(
            "ix_jobs_reuse_key_state",
            "reuse_key",
            "state",
            sqlite_where=sql("reuse_key IS NOT NULL"),
            postgresql_where=sql("reuse_key IS NOT NULL"),
        ),
    )


def _metric_columns() -> Any:
    """A mixin with one nullable column per field of `AttemptMetrics`."""
    columns = {}
    for name, kind in METRIC_TYPES.items():
        column_type = BigId if name.endswith("_bytes") else Integer() if kind is int else Epoch
        columns[name] = mapped_column(column_type, nullable=True)
    return type("MetricColumns", (), columns)


class Attempt(Base, _metric_columns()):  # type: ignore[misc]  # mypy sees the generated columns as Any
    """One attempt at a job: who ran it, how it ended, and what it measured.

    In addition to the columns below, the table has one for each field of `AttemptMetrics`, which documents them.
    `waited_s` is the time from when the job could have run until it was claimed.
    """

    __tablename__ = "attempts"

    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    outcome: Mapped[AttemptOutcome] = mapped_column(state_column(AttemptOutcome))
    worker: Mapped[str] = mapped_column(String(200))
    engine: Mapped[str] = mapped_column(String(80))
    model: Mapped[str] = mapped_column(String(200))
    started_at: Mapped[float] = mapped_column(Epoch)
    finished_at: Mapped[float | None] = mapped_column(Epoch)
    waited_s: Mapped[float | None] = mapped_column(Epoch)
    error_kind: Mapped[str | None] = mapped_column(String(80))
    error: Mapped[str | None] = mapped_column(SafeText)

    __table_args__ = (Index("ix_attempts_model_finished_at", "model", "finished_at"),)


class Result(Base):
    """The text that a job wrote, or (job_id NULL) that was joined from results without the model.

    `final` marks the one text of a document that its summary is. `reused_from` is the job that computed it, where
    that is another one.
    """

    __tablename__ = "results"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    document_id: Mapped[int] = mapped_column(ForeignKey("documents.id"))
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), unique=True)
    level: Mapped[int]
    position: Mapped[int]
    text: Mapped[str] = mapped_column(SafeText)
    finish_reason: Mapped[str] = mapped_column(String(16))
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    final: Mapped[bool] = mapped_column(default=False)
    reused_from: Mapped[int | None] = mapped_column(BigId)
    created_at: Mapped[float] = mapped_column(Epoch)

    __table_args__ = (
        Index("ix_results_document_id_level_position", "document_id", "level", "position"),
        Index(
            "uq_results_final",
            "document_id",
            unique=True,
            sqlite_where=sql("final"),
            postgresql_where=sql("final"),
        ),
    )


class Worker(Base):
    """A worker that serves a model's queue; `seen_at` is its last heartbeat. While it is paused it takes no job."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    model: Mapped[str] = mapped_column(String(200))
    engine: Mapped[str] = mapped_column(String(80))
    slots: Mapped[int]
    running: Mapped[int] = mapped_column(default=0)
    started_at: Mapped[float] = mapped_column(Epoch)
    seen_at: Mapped[float] = mapped_column(Epoch)
    stopped_at: Mapped[float | None] = mapped_column(Epoch)
    paused_at: Mapped[float | None] = mapped_column(Epoch)


class WorkerSample(Base):
    """A worker at one moment. Counters are those since it began; the GPU's columns are NULL where it has none.

    Memory and processor time are those of the worker and of its engine process together and apart; 100 % is one core.
    """

    __tablename__ = "worker_samples"

    worker: Mapped[str] = mapped_column(String(200), primary_key=True)
    at: Mapped[float] = mapped_column(Epoch, primary_key=True)
    running: Mapped[int]
    slots: Mapped[int]
    rss_bytes: Mapped[int] = mapped_column(BigId)
    worker_cpu_percent: Mapped[float] = mapped_column(Epoch)
    engine_cpu_percent: Mapped[float | None] = mapped_column(Epoch)
    vram_bytes: Mapped[int | None] = mapped_column(BigId)
    gpu_percent: Mapped[float | None] = mapped_column(Epoch)
    power_w: Mapped[float | None] = mapped_column(Epoch)
    jobs: Mapped[int] = mapped_column(BigId)
    prompt_tokens: Mapped[int] = mapped_column(BigId)
    cached_tokens: Mapped[int] = mapped_column(BigId)
    completion_tokens: Mapped[int] = mapped_column(BigId)

    __table_args__ = (Index("ix_worker_samples_at", "at"),)


class Host(Base):
    """The one host that a SQLite database belongs to: its locks do not reach another. Empty on Postgres."""

    __tablename__ = "hosts"

    machine: Mapped[str] = mapped_column(String(200), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    since: Mapped[float] = mapped_column(Epoch)
