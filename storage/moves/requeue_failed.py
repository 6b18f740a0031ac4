"""Failed jobs are queued again, and with them their documents and their batch go back to work."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import and_, case, select, update
from sqlalchemy.orm import Session

from docmill.storage.columns import db_now
from docmill.storage.errors import WrongState
from docmill.storage.moves.counters import lock_jobs, update_documents
from docmill.storage.states import BatchState, DocumentState, JobState
from docmill.storage.tables import Batch, Document, Job


def queue_failed(session: Session, batch_id: str, limit: int) -> int:
    """Queue one slice of the batch's failed jobs, in the caller's transaction; returns how many. Raises WrongState."""
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
            not_before=db_now(),  # their wait begins now
            error_kind=None,
            error=None,
            finished_at=None,
        )
        .returning(Job.document_id)
    ).all()
    _reopen_batch(session, batch_id, jobs=len(ids), documents=_reopen_documents(session, documents))
    return len(ids)


def _reopen_documents(session: Session, documents_of_jobs: Sequence[int]) -> int:
    """Take the documents of these formerly failed jobs back to work; returns how many had failed with them."""
    states = session.scalars(  # locked: a dispatcher may be about to fail one
        select(Document.state)
        .where(Document.id.in_(set(documents_of_jobs)))
        .order_by(Document.id)
        .with_for_update(key_share=True)
    ).all()
    update_documents(
        session,
        documents_of_jobs,
        lambda table, jobs: {
            "open_jobs": table.c.open_jobs + jobs,
            "failed_jobs": table.c.failed_jobs - jobs,
            "error": None,
            "finished_at": None,
            "state": case((table.c.level > 0, DocumentState.MERGING), else_=DocumentState.OPEN),
        },
    )
    return states.count(DocumentState.FAILED)


def _reopen_batch(session: Session, batch_id: str, *, jobs: int, documents: int) -> None:
    state = session.scalar(select(Batch.state).where(Batch.id == batch_id).with_for_update(key_share=True))
    if state not in (BatchState.IN_PROGRESS, BatchState.FINALIZING, BatchState.COMPLETED):
        raise WrongState(batch_id, str(state), "only a batch at work or a completed one can be retried")
    if not jobs:
        return
    session.execute(
        update(Batch)
        .where(Batch.id == batch_id)
        .values(
            state=BatchState.IN_PROGRESS,
            finalizing_at=None,
            completed_at=None,
            jobs_failed=Batch.jobs_failed - jobs,
            documents_open=Batch.documents_open + documents,
            documents_failed=Batch.documents_failed - documents,
        )
    )
