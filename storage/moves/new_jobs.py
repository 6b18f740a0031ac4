"""New jobs: the submission writes those of level 0, the dispatcher those of later levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from docmill.storage.columns import db_now, row_of
from docmill.storage.moves.counters import update_batch
from docmill.storage.states import JobState
from docmill.storage.tables import Batch, Job


@dataclass(frozen=True, slots=True)
class NewJob:
    """A prompt to run. The fields are columns of the table `jobs`.

    `reuse_key` comes from `docmill.storage.moves.reuse`; None for a job with random sampling.
    """

    level: int
    position: int
    first_input: int
    last_input: int
    prompt_ids: Sequence[int]
    max_tokens: int
    sampling: Mapping[str, Any]
    stop_token_ids: Sequence[int]
    priority: int
    reuse_key: str | None = None


def insert_jobs(session: Session, batch_id: str, document_id: int, jobs: Sequence[NewJob]) -> None:
    """Queue new jobs and count them in their batch, in the caller's transaction."""
    model = session.scalar(select(Batch.model).where(Batch.id == batch_id))
    shared = {"batch_id": batch_id, "document_id": document_id, "model": model, "state": JobState.QUEUED}
    session.execute(
        insert(Job).values(created_at=db_now()),
        [row_of(job) | shared | {"prompt_tokens": len(job.prompt_ids)} for job in jobs],
    )
    tokens = sum(len(job.prompt_ids) + job.max_tokens for job in jobs)
    count_new_jobs(session, batch_id, count=len(jobs), tokens=tokens)


def count_new_jobs(session: Session, batch_id: str, *, count: int, tokens: int) -> None:
    """Count jobs in their batch, and the most tokens they can use; both are negative for jobs that were removed."""
    update_batch(
        session, batch_id, jobs_total=Batch.jobs_total + count, tokens_planned=Batch.tokens_planned + tokens
    )  # fmt: skip
