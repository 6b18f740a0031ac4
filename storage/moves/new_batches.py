"""Write a new batch: the batch, its documents, chunks and first jobs, in transactions of bounded size.

A submission that died can be resumed: complete documents are recognized by their identity, incomplete ones are removed.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from docmill.storage.columns import db_now, row_of
from docmill.storage.database import Database
from docmill.storage.errors import IdempotencyKeyTaken
from docmill.storage.moves.batch_state import change_batch, wrong_state
from docmill.storage.moves.counters import update_batch
from docmill.storage.moves.new_jobs import NewJob, count_new_jobs, insert_jobs
from docmill.storage.moves.submitter_lock import require_submitter, this_process
from docmill.storage.states import BatchState, DocumentState
from docmill.storage.tables import Batch, Chunk, Document, Job

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no letters that look like digits


@dataclass(frozen=True, slots=True)
class NewBatch:
    """The columns of the table `batches` that are known before the first document is read."""

    submission_key: str
    model: str
    task: str
    plan: Mapping[str, Any]
    notes: Mapping[str, str]
    priority: int
    idempotency_key: str | None = None
    reuse: bool = True


@dataclass(frozen=True, slots=True)
class NewChunk:
    """A span of a document. The fields are columns of the table `chunks`."""

    position: int
    char_start: int
    char_end: int
    tokens: int
    text: str


class NewBatches:
    """The changes that a submission makes. Its methods raise WrongState once the batch has left `validating`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, new: NewBatch, *, deadline_s: float | None = None) -> str:
        """Store an empty batch in state `validating`, submitted by this process. Returns its id.

        `deadline_s` counts seconds from now; None for no deadline. Raises IdempotencyKeyTaken if another process has
        just used the key.
        """
        while True:
            batch_id = f"{time.strftime('%y%m%d')}-{''.join(secrets.choice(_ALPHABET) for _ in range(6))}"
            try:
                with self._database.write() as session:
                    session.execute(
                        insert(Batch).values(
                            id=batch_id,
                            state=BatchState.VALIDATING,
                            submitter=this_process(),
                            submitter_seen_at=db_now(),
                            created_at=db_now(),
                            expires_at=None if deadline_s is None else db_now() + deadline_s,
                            **row_of(new),
                        )
                    )
            except IntegrityError:
                if new.idempotency_key is not None and self.with_idempotency_key(new.idempotency_key) is not None:
                    raise IdempotencyKeyTaken(new.idempotency_key) from None
                continue  # the random id is taken: try another
            return batch_id

    def with_idempotency_key(self, key: str) -> Batch | None:
        """The batch submitted with this idempotency key, whatever its state."""
        with self._database.read() as session:
            return session.scalars(select(Batch).where(Batch.idempotency_key == key)).one_or_none()

    def latest_with_key(self, submission_key: str) -> Batch | None:
        """The newest batch of an identical submission that can be resumed: not cancelled, expired or failed."""
        ended_early = (BatchState.FAILED, BatchState.EXPIRED, BatchState.CANCELLING, BatchState.CANCELLED)
        with self._database.read() as session:
            return session.scalars(
                select(Batch)
                .where(Batch.submission_key == submission_key, Batch.state.not_in(ended_early))
                .order_by(Batch.created_at.desc())
                .limit(1)
            ).one_or_none()

    def known_documents(self, batch_id: str) -> set[str]:
        """The identities of the batch's complete documents."""
        complete = (Document.batch_id == batch_id, Document.chunk_count.is_not(None))
        with self._database.read() as session:
            return set(session.scalars(select(Document.identity).where(*complete)))

    def discard_unfinished_documents(self, batch_id: str) -> None:
        """Remove the incomplete documents of a submission that died, so that they can be written again."""
        with self._database.write() as session:
            require_submitter(session, batch_id)
            discard_half_written(session, batch_id)

    def begin_document(
        self, batch_id: str, *, name: str, source: str, content_hash: str, identity: str, remarks: Sequence[str]
    ) -> int:
        """Store a document without chunks. Returns its id."""
        with self._database.write() as session:
            require_submitter(session, batch_id)
            position = session.scalar(
                select(func.coalesce(func.max(Document.position), -1) + 1).where(Document.batch_id == batch_id)
            )
            return session.execute(
                insert(Document)
                .values(
                    batch_id=batch_id,
                    position=position,
                    name=name,
                    source=source,
                    content_hash=content_hash,
                    identity=identity,
                    state=DocumentState.OPEN,
                    remarks=list(remarks),
                    created_at=db_now(),
                )
                .returning(Document.id)
            ).scalar_one()

    def add_chunks(self, batch_id: str, document_id: int, chunks: Sequence[NewChunk]) -> None:
        """Store the next chunks of a document that is being written."""
        with self._database.write() as session:
            require_submitter(session, batch_id)
            session.execute(insert(Chunk), [row_of(chunk) | {"document_id": document_id} for chunk in chunks])

    def add_jobs(self, batch_id: str, document_id: int, jobs: Sequence[NewJob]) -> None:
        """Store the next jobs of a document that is being written."""
        with self._database.write() as session:
            require_submitter(session, batch_id)
            insert_jobs(session, batch_id, document_id, jobs)

    def finish_document(
        self, batch_id: str, document_id: int, *, characters: int, tokens: int, chunk_count: int, max_tokens: int | None
    ) -> None:
        """Record that all chunks and jobs of the document are stored: from now on it counts as part of the batch.

        If `max_tokens` is given, it replaces that of the document's jobs of level 0.
        """
        with self._database.write() as session:
            require_submitter(session, batch_id)
            if max_tokens is not None:
                _set_max_tokens(session, batch_id, document_id, max_tokens)
            open_jobs = session.scalar(select(func.count()).where(Job.document_id == document_id, Job.level == 0))
            session.execute(
                update(Document)
                .where(Document.id == document_id, Document.batch_id == batch_id, Document.chunk_count.is_(None))
                .values(characters=characters, tokens=tokens, chunk_count=chunk_count, open_jobs=open_jobs)
                .returning(Document.id)
            ).one()
            update_batch(
                session,
                batch_id,
                documents_total=Batch.documents_total + 1,
                documents_open=Batch.documents_open + 1,
            )

    def start(self, batch_id: str) -> None:
        """Set the batch to `in_progress`, so that its jobs can be announced: all of its documents are stored."""
        self._end_validation(batch_id, state=BatchState.IN_PROGRESS, in_progress_at=db_now())

    def refuse(self, batch_id: str, reason: str) -> None:
        """Set the batch to `failed`: validation failed, and nothing of it will run."""
        self._end_validation(batch_id, state=BatchState.FAILED, failed_at=db_now(), error=reason)

    def _end_validation(self, batch_id: str, **values: Any) -> None:
        is_mine = Batch.submitter == this_process()
        with self._database.write() as session:
            if not change_batch(session, batch_id, (BatchState.VALIDATING,), is_mine, **values):
                raise wrong_state(session, batch_id, "this process is not submitting it, or it has been submitted")


def discard_half_written(session: Session, batch_id: str) -> None:
    """Remove the batch's incomplete documents with their chunks and jobs."""
    half = select(Document.id).where(Document.batch_id == batch_id, Document.chunk_count.is_(None))
    ids = session.scalars(half).all()
    if not ids:
        return
    gone = session.scalars(
        delete(Job).where(Job.document_id.in_(ids)).returning(Job.prompt_tokens + Job.max_tokens)
    ).all()
    session.execute(delete(Chunk).where(Chunk.document_id.in_(ids)))
    session.execute(delete(Document).where(Document.id.in_(ids)))
    count_new_jobs(session, batch_id, count=-len(gone), tokens=-sum(gone))


def _set_max_tokens(session: Session, batch_id: str, document_id: int, max_tokens: int) -> None:
    first_jobs = (Job.document_id == document_id, Job.level == 0)
    spared = session.scalar(select(func.coalesce(func.sum(Job.max_tokens - max_tokens), 0)).where(*first_jobs))
    session.execute(update(Job).where(*first_jobs).values(max_tokens=max_tokens))
    update_batch(session, batch_id, tokens_planned=Batch.tokens_planned - spared)
