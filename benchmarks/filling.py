"""Fill a database with jobs by bulk inserts, in a minute: the state after a submission of that many chunks.

Every counter has the value that the transactions in `storage` would have produced; tests/integration/audit.py checks
this. Each prompt consists of a few random tokens, so all are different. Chunks are omitted, since no job reads them.
"""

from __future__ import annotations

import random
import secrets
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Engine, Table, insert, literal, literal_column, select, update
from sqlalchemy.orm import Session

from docmill.producer.batch_plan import Plan
from docmill.storage.columns import db_now
from docmill.storage.database import Database
from docmill.storage.moves.new_batches import NewBatch, NewBatches
from docmill.storage.moves.reuse import reuse_key_of
from docmill.storage.states import AttemptOutcome, BatchState, DocumentState, JobState
from docmill.storage.tables import Attempt, Batch, Document, Job, Result
from tests.integration.audit import contradictions, unsettled

_ROWS = 20_000  # rows per transaction
_ENDED_AGO_S = 3600.0  # when finished jobs ended, except the newest
_RECENT = 1_000  # jobs that ended within the last minute, for rates
_TEXT = "The river froze early that winter, and no letter came."


@dataclass(frozen=True, slots=True)
class Shape:
    """The batch to create. The first `finished` documents are done, with one result per job."""

    documents: int
    jobs_a_document: int
    finished: int = 0
    prompt_tokens: int = 24
    max_tokens: int = 64
    completion_tokens: int = 40

    @property
    def jobs(self) -> int:
        """Number of jobs in the whole batch."""
        return self.documents * self.jobs_a_document


def fill(database: Database, plan: Plan, shape: Shape, *, seed: int = 1) -> str:
    """Store a batch in progress of this shape and return its id. None of its jobs is published."""
    batch_id = NewBatches(database).create(
        NewBatch(
            submission_key=secrets.token_hex(16), model=plan.model, task=plan.task.name, plan=plan.to_json(),
            notes={}, priority=5,
        )
    )  # fmt: skip
    _insert(database, Document, _documents(batch_id, shape))
    with database.read() as session:
        ids = session.scalars(
            select(Document.id).where(Document.batch_id == batch_id).order_by(Document.position)
        ).all()
    _insert(database, Job, _jobs(batch_id, ids, plan, shape, random.Random(seed)))
    with database.write() as session:
        if shape.finished:
            _finish(session, batch_id, plan, shape)
        session.execute(update(Batch).where(Batch.id == batch_id).values(**_counters(shape), in_progress_at=db_now()))
    return batch_id


def check(engine: Engine, *, ended: bool = False) -> None:
    """Fail if a counter or a state is wrong; with `ended`, also if anything has not ended."""
    with engine.connect() as connection:
        found = (unsettled if ended else contradictions)(connection)
    assert found == [], found


def _documents(batch_id: str, shape: Shape) -> Iterator[dict[str, Any]]:
    for position in range(shape.documents):
        done = position < shape.finished
        yield {
            "batch_id": batch_id,
            "position": position,
            "name": f"document-{position:07}.txt",
            "source": f"/documents/document-{position:07}.txt",
            "content_hash": f"{position:064x}",
            "identity": f"{position:064x}",
            "state": DocumentState.DONE if done else DocumentState.OPEN,
            "characters": 1000 * shape.jobs_a_document,
            "tokens": 250 * shape.jobs_a_document,
            "chunk_count": shape.jobs_a_document,
            "open_jobs": 0 if done else shape.jobs_a_document,
            "created_at": 0.0,
            "finished_at": 1.0 if done else None,
        }


def _jobs(
    batch_id: str, documents: Sequence[int], plan: Plan, shape: Shape, rng: random.Random
) -> Iterator[dict[str, Any]]:
    sampling, deterministic = plan.sampling.to_json(), plan.sampling.is_deterministic
    for number, document_id in enumerate(documents):
        done = number < shape.finished
        for position in range(shape.jobs_a_document):
            prompt = array("I", rng.choices(range(1000, 9000), k=shape.prompt_tokens))
            yield {
                "batch_id": batch_id,
                "document_id": document_id,
                "level": 0,
                "position": position,
                "first_input": position,
                "last_input": position,
                "model": plan.model,
                "priority": 5,
                "prompt_ids": prompt,
                "prompt_tokens": shape.prompt_tokens,
                "max_tokens": shape.max_tokens,
                "sampling": sampling,
                "stop_token_ids": [2],
                "reuse_key": reuse_key_of("filled", prompt, sampling, [2]) if deterministic else None,
                "state": JobState.SUCCEEDED if done else JobState.QUEUED,
                "epoch": 1 if done else 0,
                "created_at": 0.0,
                "finished_at": 1.0 if done else None,
            }


def _insert(database: Database, table: type[Document] | type[Job], rows: Iterator[dict[str, Any]]) -> None:
    block: list[dict[str, Any]] = []
    for row in rows:
        block.append(row)
        if len(block) == _ROWS:
            _store(database, table, block)
            block = []
    if block:
        _store(database, table, block)


def _store(database: Database, table: type[Document] | type[Job], rows: Sequence[dict[str, Any]]) -> None:
    with database.write() as session:
        session.connection().execute(insert(cast(Table, table.__table__)), rows)


def _finish(session: Session, batch_id: str, plan: Plan, shape: Shape) -> None:
    """Create the attempts and results of finished jobs inside the database."""
    succeeded = (Job.batch_id == batch_id, Job.state == JobState.SUCCEEDED)
    first_recent = session.scalar(select(Job.id).where(*succeeded).order_by(Job.id.desc()).offset(_RECENT).limit(1))
    ago = db_now() - _ENDED_AGO_S
    attempt = {
        "job_id": Job.id, "epoch": literal(1), "outcome": literal(AttemptOutcome.SUCCEEDED, Attempt.outcome.type),
        "worker": literal("filled/cpu"), "engine": literal("simulated"), "model": Job.model, "started_at": ago - 1.0,
        "finished_at": ago, "queue_s": literal(0.1), "prefill_s": literal(0.1), "decode_s": literal(0.8),
        "prompt_tokens": Job.prompt_tokens, "cached_tokens": literal(0),
        "completion_tokens": literal(shape.completion_tokens), "batch_size": literal(8.0),
        "peak_memory_bytes": literal(100_000_000),
    }  # fmt: skip
    session.execute(insert(Attempt).from_select(list(attempt), select(*attempt.values()).where(*succeeded)))
    result = {
        "document_id": Job.document_id, "job_id": Job.id, "level": literal(0), "position": Job.position,
        "text": literal(_TEXT), "finish_reason": literal("stop"), "prompt_tokens": Job.prompt_tokens,
        "completion_tokens": literal(shape.completion_tokens), "final": literal_column("false"), "created_at": ago,
    }  # fmt: skip
    session.execute(insert(Result).from_select(list(result), select(*result.values()).where(*succeeded)))
    final = {
        "document_id": Document.id, "job_id": literal_column("NULL"), "level": literal(0), "position": literal(0),
        "text": literal(_TEXT), "finish_reason": literal("joined"), "prompt_tokens": literal(0),
        "completion_tokens": literal(shape.completion_tokens * shape.jobs_a_document), "final": literal_column("true"),
        "created_at": ago,
    }  # fmt: skip
    done = (Document.batch_id == batch_id, Document.state == DocumentState.DONE)
    session.execute(insert(Result).from_select(list(final), select(*final.values()).where(*done)))
    if first_recent is not None:
        session.execute(
            update(Attempt).where(Attempt.job_id > first_recent).values(started_at=ago + 3560, finished_at=ago + 3590)
        )


def _counters(shape: Shape) -> dict[str, Any]:
    done = shape.finished * shape.jobs_a_document
    return {
        "state": BatchState.IN_PROGRESS,
        "documents_total": shape.documents,
        "documents_open": shape.documents - shape.finished,
        "jobs_total": shape.jobs,
        "jobs_succeeded": done,
        "tokens_planned": shape.jobs * (shape.prompt_tokens + shape.max_tokens),
        "prompt_tokens": done * shape.prompt_tokens,
        "completion_tokens": done * shape.completion_tokens,
    }
