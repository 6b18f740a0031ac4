"""Rescue of lost jobs: jobs whose worker stopped renewing its lease are queued again, or fail after too many losses."""

from __future__ import annotations

from sqlalchemy import Integer, and_, bindparam, select, update
from sqlalchemy.orm import Session

from docmill.storage.columns import db_now
from docmill.storage.database import Database
from docmill.storage.moves.attempts import end_attempts
from docmill.storage.moves.counters import count_failed
from docmill.storage.states import AttemptOutcome, JobState
from docmill.storage.tables import Attempt, Job


def rescue_lost_jobs(database: Database, *, max_losses: int, limit: int = 500) -> int:
    """Queue jobs whose lease has expired again; fail those lost `max_losses` times. Returns how many were found."""
    with database.read() as session:  # usually there are none, and SQLite has only one writer
        if session.scalar(_ANY_EXPIRED) is None:
            return 0
    with database.write() as session:
        expired = session.execute(_EXPIRED, {"limit": limit}).all()
        failed = []
        for row in expired:
            gives_up = row.losses + 1 >= max_losses
            _take_back(session, row.id, row.epoch, row.losses, gives_up=gives_up)
            if gives_up:
                failed.append((row.batch_id, row.document_id))
        count_failed(session, failed)
        return len(expired)


def _take_back(session: Session, job_id: int, epoch: int, losses: int, *, gives_up: bool) -> None:
    session.execute(
        update(Job)
        .where(Job.id == job_id, Job.epoch == epoch, Job.state == JobState.RUNNING)  # the SELECT has locked it
        .values(
            state=JobState.FAILED if gives_up else JobState.QUEUED,
            owner=None,
            lease_until=None,
            published_at=None,
            publishes=0,
            losses=Job.losses + 1,
            error_kind="WorkerLost" if gives_up else None,
            error=f"its worker was lost {losses + 1} times while it ran" if gives_up else None,
            finished_at=db_now() if gives_up else None,
        )
    )
    end_attempts(session, (Attempt.job_id == job_id) & (Attempt.epoch == epoch), AttemptOutcome.LOST)


_HAS_EXPIRED = and_(Job.state == JobState.RUNNING, Job.lease_until < db_now())
_ANY_EXPIRED = select(Job.id).where(_HAS_EXPIRED).limit(1)
_EXPIRED = (
    select(Job.id, Job.epoch, Job.losses, Job.batch_id, Job.document_id)
    .where(_HAS_EXPIRED)
    .order_by(Job.lease_until)
    .limit(bindparam("limit", type_=Integer))
    .with_for_update(skip_locked=True, key_share=True)
)
