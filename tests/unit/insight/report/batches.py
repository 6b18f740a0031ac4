"""Batches as stored after a run, written row by row, so that all measurements are known exactly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from sqlalchemy import insert, text, update

from docmill.storage.database import Database
from docmill.storage.states import AttemptOutcome, BatchState, DocumentState, JobState
from docmill.storage.tables import Attempt, Batch, Document, Job, Result, Worker, WorkerSample

BEGAN = 1_790_000_000.0
_ids = count(1)


@dataclass(frozen=True)
class Try:
    """The only attempt of a job, in seconds since BEGAN. `ended` None: it is running."""

    began: float
    queue: float | None = 0.0
    prefill: float | None = 1.0
    decode: float | None = 2.0
    ended: float | None = -1.0
    outcome: AttemptOutcome = AttemptOutcome.SUCCEEDED
    waited: float | None = 0.5
    prompt: int = 100
    cached: int | None = None
    completion: int | None = 10
    energy: float | None = None
    error_kind: str | None = None
    error: str | None = None
    worker: str = "w1"
    document: int = 0
    level: int = 0
    epoch: int = 1
    memory: int | None = 1 << 30
    vram: int | None = None
    reused_from: int | None = None

    @property
    def ended_s(self) -> float | None:
        if self.ended is None or self.ended >= 0:
            return self.ended
        return self.began + (self.queue or 0) + (self.prefill or 0) + (self.decode or 0)

    @property
    def state(self) -> JobState:
        if self.outcome in (AttemptOutcome.SUCCEEDED, AttemptOutcome.REUSED):
            return JobState.SUCCEEDED
        return JobState.FAILED if self.outcome is AttemptOutcome.FAILED else JobState.RUNNING


def failed(began: float, kind: str, error: str, **values: Any) -> Try:
    """An attempt that failed after half a second."""
    return Try(
        began, queue=None, prefill=None, decode=None, ended=began + 0.5, outcome=AttemptOutcome.FAILED,
        completion=None, error_kind=kind, error=error, **values,
    )  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """The ids of a stored batch."""

    batch: str
    jobs: Sequence[int] = field(default_factory=list)


def store(
    database: Database,
    tries: Sequence[Try] = (),
    *,
    documents: Sequence[str] = ("a.txt",),
    failed_documents: Sequence[tuple[str, str]] = (),
    state: BatchState = BatchState.COMPLETED,
    model: str = "a model",
    task: str = "summarize",
    notes: dict[str, str] | None = None,
    ended: float | None = None,
) -> Stored:
    """Store a batch with one job per try; workers have two slots."""
    number = next(_ids)
    batch = f"260101-b{number:05}"
    first = number * 1_000_000
    ends = [t.ended_s or 0.0 for t in tries]
    states = [t.state for t in tries]
    done = [t for t in tries if t.outcome is AttemptOutcome.SUCCEEDED]
    with database.write() as session:
        _add(session, Batch, [{
            "id": batch, "submission_key": batch, "state": state, "model": model, "task": task, "plan": {},
            "notes": notes or {}, "priority": 5, "reuse": True,
            "documents_total": len(documents) + len(failed_documents), "documents_failed": len(failed_documents),
            "documents_open": 0 if state.is_terminal else len(documents),
            "jobs_total": len(tries), "jobs_succeeded": states.count(JobState.SUCCEEDED),
            "jobs_failed": states.count(JobState.FAILED),
            "jobs_reused": sum(t.outcome is AttemptOutcome.REUSED for t in tries),
            "prompt_tokens": sum(t.prompt for t in done),
            "completion_tokens": sum(t.completion or 0 for t in done),
            "created_at": BEGAN - 1, "in_progress_at": BEGAN,
            "completed_at": BEGAN + (ended if ended is not None else max(ends, default=0.0))
            if state.is_terminal else None,
        }])  # fmt: skip
        names: list[tuple[str, DocumentState, str | None]] = [(name, DocumentState.DONE, None) for name in documents]
        names += [(name, DocumentState.FAILED, error) for name, error in failed_documents]
        _add(session, Document, [
            {"id": first + at, "batch_id": batch, "position": at, "name": name, "source": name, "content_hash": "",
             "identity": f"{at}", "state": kind, "error": error, "chunk_count": 1, "remarks": [], "created_at": BEGAN}
            for at, (name, kind, error) in enumerate(names)
        ])  # fmt: skip
        _add(session, Job, (
            {"id": first + at, "batch_id": batch, "document_id": first + t.document, "level": t.level, "position": at,
             "first_input": at, "last_input": at, "model": model, "priority": 5, "prompt_ids": (1, 2),
             "prompt_tokens": t.prompt, "max_tokens": 50, "sampling": {}, "stop_token_ids": [], "state": t.state,
             "epoch": t.epoch, "created_at": BEGAN - 1, "error_kind": t.error_kind}
            for at, t in enumerate(tries)
        ))  # fmt: skip
        _add(session, Attempt, (
            {"job_id": first + at, "epoch": t.epoch, "outcome": t.outcome, "worker": t.worker, "engine": "simulated",
             "model": model, "started_at": BEGAN + t.began,
             "finished_at": None if t.ended_s is None else BEGAN + t.ended_s, "waited_s": t.waited, "queue_s": t.queue,
             "prefill_s": t.prefill, "decode_s": t.decode, "prompt_tokens": t.prompt, "cached_tokens": t.cached,
             "completion_tokens": t.completion, "batch_size": 1.5, "peak_memory_bytes": t.memory,
             "peak_vram_bytes": t.vram, "energy_j": t.energy, "error_kind": t.error_kind, "error": t.error}
            for at, t in enumerate(tries)
        ))  # fmt: skip
        _add(session, Result, (
            {"document_id": first + t.document, "job_id": first + at, "level": t.level, "position": at, "text": "",
             "finish_reason": "stop", "prompt_tokens": t.prompt, "completion_tokens": t.completion or 0,
             "reused_from": t.reused_from, "created_at": BEGAN}
            for at, t in enumerate(tries) if t.reused_from
        ))  # fmt: skip
    return Stored(batch, range(first, first + len(tries)))


_MANY = """
WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < :last)
INSERT INTO {table} SELECT {columns} FROM numbers"""


def store_many(database: Database, attempts: int) -> str:
    """A batch of this many jobs, ten per document, one in 500 failed. SQLite only, which generates the rows."""
    batch = store(database, [], documents=()).batch
    first = next(_ids) * 10_000_000
    failing = "n % 500 = 0"
    rows: dict[str, dict[str, str]] = {
        "documents": {
            "id": f"{first} + n", "batch_id": f"'{batch}'", "position": "n", "name": "n || '.txt'", "source": "''",
            "content_hash": "''", "identity": "n", "state": "'done'", "characters": "0", "tokens": "0", "level": "0",
            "open_jobs": "0", "failed_jobs": "0", "remarks": "'[]'", "created_at": f"{BEGAN}",
        },
        "jobs": {
            "id": f"{first} + n", "batch_id": f"'{batch}'", "document_id": f"{first} + n / 10", "level": "0",
            "position": "n", "first_input": "n", "last_input": "n", "model": "'m'", "priority": "5",
            "prompt_ids": "zeroblob(40)", "prompt_tokens": "10", "max_tokens": "10", "sampling": "'{}'",
            "stop_token_ids": "'[]'", "state": f"CASE WHEN {failing} THEN 'failed' ELSE 'succeeded' END", "epoch": "1",
            "failures": "0", "losses": "0", "deaths": "0", "not_before": "0", "publishes": "0",
            "created_at": f"{BEGAN}",
        },
        "attempts": {
            "job_id": f"{first} + n", "epoch": "1", "worker": "'w1'", "engine": "'simulated'", "model": "'m'",
            "outcome": f"CASE WHEN {failing} THEN 'failed' ELSE 'succeeded' END", "started_at": f"{BEGAN} + n / 50.0",
            "finished_at": f"{BEGAN} + n / 50.0 + 3", "waited_s": "n / 50.0", "queue_s": "0.1",
            "prefill_s": "0.1 + n * 7919 % 1000 / 1000.0", "decode_s": "0.2 + n * 104729 % 1000 / 600.0",
            "prompt_tokens": "400 + n * 31 % 1000", "completion_tokens": "10 + n * 17 % 300", "batch_size": "8.0",
            "peak_memory_bytes": "1 << 30", "error_kind": f"CASE WHEN {failing} THEN 'kind ' || n % 7 END",
        },
    }  # fmt: skip
    with database.write() as session:
        for table, columns in rows.items():
            names = f"{table}({', '.join(columns)})"
            statement = _MANY.format(table=names, columns=", ".join(columns.values()))
            session.execute(text(statement), {"last": (attempts // 10 if table == "documents" else attempts) - 1})
        failures = -(-attempts // 500)
        session.execute(
            update(Batch)
            .where(Batch.id == batch)
            .values(
                documents_total=attempts // 10, jobs_total=attempts, jobs_succeeded=attempts - failures,
                jobs_failed=failures,
            )
        )  # fmt: skip
    return batch


def add_workers(database: Database, slots: dict[str, int]) -> None:
    """Workers by name, with their slots."""
    with database.write() as session:
        _add(session, Worker, [
            {"name": name, "model": "a model", "engine": "simulated", "slots": number, "started_at": BEGAN - 10,
             "seen_at": BEGAN, "running": 0}
            for name, number in slots.items()
        ])  # fmt: skip


def add_samples(database: Database, worker: str, samples: Iterable[tuple[float, int, float, int | None]]) -> None:
    """Samples of a worker: seconds since BEGAN, bytes, percent of a core, bytes of VRAM."""
    with database.write() as session:
        _add(session, WorkerSample, [
            {"worker": worker, "at": BEGAN + at, "running": 1, "slots": 2, "rss_bytes": rss, "worker_cpu_percent": 10.0,
             "engine_cpu_percent": cpu - 10.0, "vram_bytes": vram, "gpu_percent": None if vram is None else 50.0,
             "jobs": 0, "prompt_tokens": 0, "cached_tokens": 0, "completion_tokens": 0}
            for at, rss, cpu, vram in samples
        ])  # fmt: skip


def _add(session: Any, table: Any, rows: Iterable[dict[str, Any]]) -> None:
    rows = list(rows)
    if rows:
        session.execute(insert(table), rows)
