"""Reuse of equal jobs: jobs with the same model weights, prompt, deterministic sampling and length are computed once.

Equal jobs are looked up when a job is claimed, within and across batches. If an equal job has succeeded, its text is
reused; if one is running, the claimed job waits for it.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, bindparam, func, select, text, update
from sqlalchemy.orm import Session

from docmill.storage.columns import db_now
from docmill.storage.states import JobState
from docmill.storage.tables import Batch, Job, Result

_WAKE = 1_000  # waiting jobs woken at once; the rest are announced again when their wait ends


@dataclass(frozen=True, slots=True)
class ClaimFacts:
    """What decides how a job can be claimed. `reuse_key` is None if reuse is disabled for its batch."""

    reuse_key: str | None
    max_tokens: int
    is_paused: bool


@dataclass(frozen=True, slots=True)
class EqualResult:
    """The result of an equal job; `job_id` is the job that computed it."""

    job_id: int
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


def reuse_key_of(
    weights: str, prompt_ids: Sequence[int], sampling: Mapping[str, Any], stop_token_ids: Sequence[int]
) -> str:
    """Return 32 hexadecimal digits that are the same for equal jobs. `weights` is the model's fingerprint."""
    parameters = json.dumps([weights, dict(sampling), sorted(stop_token_ids)], sort_keys=True)
    digest = hashlib.blake2b(parameters.encode(), digest_size=16)
    digest.update(array("I", prompt_ids).tobytes())
    return digest.hexdigest()


def claim_facts(session: Session, job_id: int) -> ClaimFacts | None:
    """Read what a claim needs to know first. None: there is no such job."""
    row = session.execute(_CLAIM_FACTS, {"job_id": job_id}).one_or_none()
    if row is None:
        return None
    return ClaimFacts(row.reuse_key if row.reuse else None, row.max_tokens, row.paused_at is not None)


def lock_key(session: Session, key: str) -> None:
    """Let no other worker claim a job with this key until the transaction ends. SQLite has only one writer anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": key})


def equal_result(session: Session, key: str, max_tokens: int) -> EqualResult | None:
    """Return the result of an equal job that has succeeded, if there is one."""
    row = session.execute(_EQUAL_RESULT, {"key": key, "max_tokens": max_tokens}).one_or_none()
    return None if row is None else EqualResult(*row)


def equal_is_running(session: Session, job_id: int, key: str, max_tokens: int) -> bool:
    """Return True if another worker, whose lease is valid, is computing an equal job."""
    running = {"key": key, "max_tokens": max_tokens, "job_id": job_id}
    return session.scalar(_EQUAL_IS_RUNNING, running) is not None


def wait_for_equal(session: Session, job_id: int, *, delay_s: float) -> None:
    """Announce the job again when the equal job has ended, or after `delay_s` seconds."""
    session.execute(
        update(Job)
        .where(Job.id == job_id, Job.state == JobState.QUEUED)
        .values(not_before=db_now() + delay_s, published_at=None, publishes=0)
    )


def wake_waiting(session: Session, key: str | None) -> None:
    """Let jobs that wait for a job with this key be announced, because it has ended."""
    if key is None:
        return
    ids = session.scalars(_WAITING, {"key": key}).all()
    if ids:
        session.execute(update(Job).where(Job.id.in_(ids)).values(not_before=0.0))


# Built once: building a statement takes longer than running it, and every job needs all of them.
_IS_EQUAL = and_(Job.reuse_key == bindparam("key"), Job.max_tokens == bindparam("max_tokens"))
_CLAIM_FACTS = (
    select(Job.reuse_key, Job.max_tokens, Batch.reuse, Batch.paused_at)
    .join(Batch, Batch.id == Job.batch_id)
    .where(Job.id == bindparam("job_id"))
)
_EQUAL_RESULT = (
    select(
        func.coalesce(Result.reused_from, Result.job_id), Result.text, Result.finish_reason,
        Result.prompt_tokens, Result.completion_tokens,
    )
    .join(Job, Job.id == Result.job_id)
    .where(_IS_EQUAL, Job.state == JobState.SUCCEEDED)
    .limit(1)
)  # fmt: skip
_EQUAL_IS_RUNNING = (
    select(Job.id)
    .where(_IS_EQUAL, Job.state == JobState.RUNNING, Job.id != bindparam("job_id"), Job.lease_until > db_now())
    .limit(1)
)
_WAITING = (
    select(Job.id)
    .where(
        Job.reuse_key == bindparam("key"),
        Job.state == JobState.QUEUED,
        Job.failures == 0,
        Job.not_before > db_now(),
    )
    .order_by(Job.id)
    .limit(_WAKE)
    .with_for_update(skip_locked=True, key_share=True)
)
