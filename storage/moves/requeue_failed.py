"""Queue failed jobs again and reopen their documents and their batch (`docmill retry`)."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import and_, case, select, update
from sqlalchemy.orm import Session

from docmill.storage.columns import db_now
from docmill.storage.errors import WrongState
from docmill.storage.moves.counters import JOBS, lock_jobs, update_batch, update_documents
from docmill.storage.states import BatchState, DocumentState, JobState
from docmill.storage.tables import Batch, Document, Job


def requeue_failed(session: Session, batch_id: str, limit: int) -> int:
    """Queue up to `limit` failed jobs of the batch, in the caller's transaction. Returns how many.

    Raises WrongState unless the batch is at work or completed.
    """
    ids = lock_jobs(session, and_(Job.batch_id == batch_id, Job.state == JobState.FAILED), limit=limit)
    documents = session.scalars(
        update(Job)
        .where(Job.id.in_(ids))
        .values(
            state=JobState.QUEUED,
            failures=0,
            losses=0,
            deaths=0,
            published_at=None,
            publishes=0,
            not_before=db_now(),  # `waited_s` counts from here
            error_kind=None,
            error=None,
            finished_at=None,
        )
        .returning(Job.document_id)
    ).all()
    _reopen_batch(session, batch_id, jobs=len(ids), documents=_reopen_documents(session, documents))
    return len(ids)


def _reopen_documents(session: Session, documents_of_jobs: Sequence[int]) -> int:
    """Reopen the documents of these formerly failed jobs; returns how many of the documents had failed."""
    states = session.scalars(  # locked, because a dispatcher may be about to fail one
        select(Document.state)
        .where(Document.id.in_(set(documents_of_jobs)))
        .order_by(Document.id)
        .with_for_update(key_share=True)
    ).all()
    update_documents(
        session,
        documents_of_jobs,
        open_jobs=Document.open_jobs + JOBS,
        failed_jobs=Document.failed_jobs - JOBS,
        error=None,
        finished_at=None,
        state=case((Document.level > 0, DocumentState.MERGING), else_=DocumentState.OPEN),
    )
    return states.count(DocumentState.FAILED)


def _reopen_batch(session: Session, batch_id: str, *, jobs: int, documents: int) -> None:
    state = session.scalar(select(Batch.state).where(Batch.id == batch_id).with_for_update(key_share=True))
    if state not in (BatchState.IN_PROGRESS, BatchState.FINALIZING, BatchState.COMPLETED):
        raise WrongState(batch_id, str(state), "only an active or a completed batch can be retried")
    if jobs:
        update_batch(
            session,
            batch_id,
            state=BatchState.IN_PROGRESS,
            finalizing_at=None,
            completed_at=None,
            jobs_failed=Batch.jobs_failed - jobs,
            documents_open=Batch.documents_open + documents,
            documents_failed=Batch.documents_failed - documents,
        )
