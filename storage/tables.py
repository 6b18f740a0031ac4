"""The tables: the data dictionary of the database.

Times (`*_at`) are seconds since 1970 by the database's clock, durations (`*_s`) seconds, sizes (`*_bytes`) bytes. Only
the transactions in `docmill.storage.moves` write rows. For your own SQL, prefer the views (see `docs/sql.md`): their
names and columns are stable, tables may change.
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


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def _partial_index(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    """Index the rows that meet a condition. SQLite uses it only for queries that state the same condition."""
    return Index(name, *columns, unique=unique, sqlite_where=sql(where), postgresql_where=sql(where))


class Batch(Base):
    """A batch: the documents that a user submitted together, and what is to be done with them.

    `submission_key` is equal for submissions of the same inputs with the same plan, so that an interrupted one can be
    resumed; `idempotency_key` is the user's own and unique. `submitter` is the process that writes the documents while
    the batch is `validating`, and `submitter_seen_at` its last write. `plan` is the producer's: prompts, chunk sizes,
    merge strategy and sampling. Smaller `priority` values run first. `reuse` allows results of equal jobs to be reused.

    The transactions that change documents and jobs also update the counters. `documents_open` have not ended.
    `tokens_planned` is the most that its jobs can use, prompts and outputs. `prompt_tokens`, `cached_tokens` and
    `completion_tokens` were computed for this batch: reused results are not counted. The times are those at which the
    state of that name was entered; `expires_at` is the deadline, and `paused_at` is NULL unless the batch is paused.
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
    """One input text of a batch, in input order by `position`.

    `name` is the path or name shown to the user, and `source` the file, archive or URL it was read from.
    `content_hash` is the SHA-256 of the text, and `identity` that of source and text together, by which a resumed
    submission recognizes documents. `characters` and `tokens` measure the loaded text. `chunk_count` is NULL until all
    chunks and jobs of level 0 are stored. `level` is the current merge level, `open_jobs` counts its jobs that have not
    ended, and `failed_jobs` those that failed. `remarks` are warnings for the user.
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
        _partial_index(
            "ix_documents_level_ended",
            "batch_id",
            where="open_jobs = 0 AND finished_at IS NULL AND chunk_count IS NOT NULL",
        ),
    )


class Chunk(Base):
    """A span of a document: characters `char_start` (included) to `char_end` (excluded) of its loaded text.

    `tokens` is the length of `text` when it is tokenized by itself.
    """

    __tablename__ = "chunks"

    document_id: Mapped[int] = mapped_column(ForeignKey("documents.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    char_start: Mapped[int] = mapped_column(BigId)
    char_end: Mapped[int] = mapped_column(BigId)
    tokens: Mapped[int]
    text: Mapped[str] = mapped_column(SafeText)


class Job(Base):
    """One prompt with everything an engine needs to run it.

    A job of level 0 processes the chunk at its `position`; a job of a later level merges the results `first_input` to
    `last_input` of the level below. `prompt_ids` are the token ids of the rendered prompt. `max_tokens` limits the
    output. Smaller `priority` values run first. Jobs with the same `reuse_key` and `max_tokens` have the same result;
    it is NULL if sampling is random.

    `epoch` counts the claims: a worker may change a job only with the epoch of its own claim (fencing). `owner` is the
    worker, and `lease_until` the time until which it may keep silent. `failures` counts failed attempts, `deaths` those
    that ended the engine process, and `losses` workers that stopped answering. The job may not start before
    `not_before`. `published_at` is the time of its last message on the queue, and `publishes` counts its messages.
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
        _partial_index(
            "ix_jobs_unpublished", "batch_id", "priority", "id", where="state = 'queued' AND published_at IS NULL"
        ),
        _partial_index(
            "ix_jobs_published", "model", "published_at", where="state = 'queued' AND published_at IS NOT NULL"
        ),
        _partial_index("ix_jobs_leased", "lease_until", where="state = 'running'"),
        Index("ix_jobs_batch_id_state_id", "batch_id", "state", "id"),
        _partial_index("ix_jobs_reuse_key_state", "reuse_key", "state", where="reuse_key IS NOT NULL"),
    )


def _metric_columns() -> Any:
    """A mixin with one nullable column per field of `AttemptMetrics`."""
    columns = {}
    for name, kind in METRIC_TYPES.items():
        column_type = BigId if name.endswith("_bytes") else Integer() if kind is int else Epoch
        columns[name] = mapped_column(column_type, nullable=True)
    return type("MetricColumns", (), columns)


class Attempt(Base, _metric_columns()):  # type: ignore[misc]  # mypy sees the generated columns as Any
    """One attempt at a job: which worker ran it, how it ended, and what it measured.

    In addition to the columns below, the table has one for each field of `AttemptMetrics`, which documents them.
    `epoch` is that of the claim, so 1 for a job's first attempt. `waited_s` is the time from when the job could have
    run until it was claimed. `error_kind` is a short name to group by, and `error` the full message.
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
    """The text that a job generated or, if `job_id` is NULL, a text joined from other results without the model.

    `finish_reason` is `stop`, `length` (the limit `max_tokens` was reached) or `joined`. `final` marks the result that
    is its document's summary. If the result was reused, `reused_from` is the job that computed it.
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
        _partial_index("uq_results_final", "document_id", where="final", unique=True),
    )


class Worker(Base):
    """A worker that serves a model's queue with `slots` jobs at once, of which `running` are in use.

    `seen_at` is its last heartbeat, `stopped_at` the time it shut down. While `paused_at` is set, it claims no jobs.
    """

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
    """The resources that a worker and its engine used at one moment.

    `running` counts the jobs that the worker holds, including those that wait in the engine. `rss_bytes` is the memory
    of the worker and its engine process together. Processor times are percentages of one core since the last sample.
    The engine's is NULL while there is no engine process; the GPU's columns are NULL if the engine uses no GPU or it
    reports no values. `jobs` and the tokens are counted since the worker started.
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
    """The host that a SQLite database belongs to: SQLite's locks do not work across hosts. Empty on Postgres."""

    __tablename__ = "hosts"

    machine: Mapped[str] = mapped_column(String(200), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    since: Mapped[float] = mapped_column(Epoch)
