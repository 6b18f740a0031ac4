"""Equal jobs are computed once: same weights, prompt, sampling that draws nothing new, and length.

A job that is claimed while its equal runs waits for that one; one whose equal has succeeded takes its text. Both are
looked up when the job is claimed, so it holds within a batch and across batches, whoever submitted them.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, func, select, text, update
from sqlalchemy.orm import Session

from docmill.storage.columns import db_now
from docmill.storage.states import JobState
from docmill.storage.tables import Batch, Job, Result

_WAKE = 1_000  # jobs woken at once; the others look again by themselves


@dataclass(frozen=True, slots=True)
class Claimable:
    """What decides how a job may be claimed. `reuse_key` is None where its batch computes everything itself."""

    reuse_key: str | None
    max_tokens: int
    is_paused: bool


@dataclass(frozen=True, slots=True)
class EqualResult:
    """The text of an equal job; `job_id` is the one that computed it."""

    job_id: int
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


def reuse_key_of(
    weights: str, prompt_ids: Sequence[int], sampling: Mapping[str, Any], stop_token_ids: Sequence[int]
) -> str:
    """32 hex digits that are equal for equal jobs; `weights` is the model's fingerprint."""
    parameters = json.dumps([weights, dict(sampling), sorted(stop_token_ids)], sort_keys=True)
    digest = hashlib.blake2b(parameters.encode(), digest_size=16)
    digest.update(array("I", prompt_ids).tobytes())
    return digest.hexdigest()


def look_at(session: Session, job_id: int) -> Claimable | None:
    """What a claim must know beforehand; None: there is no such job."""
    row = session.execute(_LOOK_AT, {"job_id": job_id}).one_or_none()
    if row is None:
        return None
    return Claimable(row.reuse_key if row.reuse else None, row.max_tokens, row.paused_at is not None)


def hold_key(session: Session, key: str) -> None:
    """Let nobody else claim a job of this key until the transaction ends. SQLite has one writer anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": key})


def equal_result(session: Session, key: str, max_tokens: int) -> EqualResult | None:
    """The text that an equal job wrote."""
    row = session.execute(_EQUAL_RESULT, {"key": key, "max_tokens": max_tokens}).one_or_none()
    return None if row is None else EqualResult(*row)


def equal_is_running(session: Session, job_id: int, key: str, max_tokens: int) -> bool:
    """Whether a worker that is alive computes the same just now."""
    running = {"key": key, "max_tokens": max_tokens, "job_id": job_id}
    return session.scalar(_EQUAL_IS_RUNNING, running) is not None


def wait_for_equal(session: Session, job_id: int, *, delay_s: float) -> None:
    """Let the job be announced again when its equal has ended, or after `delay_s` seconds."""
    session.execute(
        update(Job)
        .where(Job.id == job_id, Job.state == JobState.QUEUED)
        .values(not_before=db_now() + delay_s, published_at=None, publishes=0)
    )


def wake_equals(session: Session, key: str | None) -> None:
    """The job of this key has ended: those that wait for it may be announced."""
    if key is None:
        return
    ids = session.scalars(_WAITING, {"key": key}).all()
    if ids:
        session.execute(update(Job).where(Job.id.in_(ids)).values(not_before=0.0))


# Built once: building a statement takes longer than running it, and every job needs each of these.
_LOOK_AT = (
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
    .where(
        Job.reuse_key == bindparam("key"),
        Job.state == JobState.SUCCEEDED,
        Job.max_tokens == bindparam("max_tokens"),
    )
    .limit(1)
)  # fmt: skip
_EQUAL_IS_RUNNING = (
    select(Job.id)
    .where(
        Job.reuse_key == bindparam("key"),
        Job.state == JobState.RUNNING,
        Job.max_tokens == bindparam("max_tokens"),
        Job.id != bindparam("job_id"),
        Job.lease_until > db_now(),
    )
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
