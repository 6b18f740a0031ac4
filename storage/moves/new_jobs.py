"""New jobs: a submission writes the first level's, the dispatcher those of the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from docmill.storage.columns import db_now
from docmill.storage.states import JobState
from docmill.storage.tables import Batch, Job


@dataclass(frozen=True, slots=True)
class NewJob:
    """One prompt to run; reads the inputs `first_input` to `last_input` of the level below.

    `reuse_key` is that of `docmill.storage.moves.reuse`, None for a job whose every run may say something else.
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
    """Queue new jobs and count them on their batch, in the caller's transaction."""
    model = session.scalar(select(Batch.model).where(Batch.id == batch_id))
    session.execute(
        insert(Job).values(created_at=db_now()),
        [
            {
                "batch_id": batch_id,
                "document_id": document_id,
                "model": model,
                "level": job.level,
                "position": job.position,
                "first_input": job.first_input,
                "last_input": job.last_input,
                "prompt_ids": job.prompt_ids,
                "prompt_tokens": len(job.prompt_ids),
                "max_tokens": job.max_tokens,
                "sampling": dict(job.sampling),
                "stop_token_ids": list(job.stop_token_ids),
                "priority": job.priority,
                "reuse_key": job.reuse_key,
                "state": JobState.QUEUED,
            }
            for job in jobs
        ],
    )
    tokens = sum(len(job.prompt_ids) + job.max_tokens for job in jobs)
    count_new_jobs(session, batch_id, count=len(jobs), tokens=tokens)


def count_new_jobs(session: Session, batch_id: str, *, count: int, tokens: int) -> None:
    """Count jobs and the tokens they may take on their batch; negative for jobs taken back."""
    session.execute(
        update(Batch)
        .where(Batch.id == batch_id)
        .values(jobs_total=Batch.jobs_total + count, tokens_planned=Batch.tokens_planned + tokens)
    )
