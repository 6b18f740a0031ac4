"""Writing a batch: the batch, its documents, chunks and first jobs, in transactions of bounded size.

A submission that dies is taken up again: whole documents are known by their content, half ones are removed.
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

from docmill.storage.columns import db_now
from docmill.storage.database import Database
from docmill.storage.errors import IdempotencyKeyTaken, WrongState
from docmill.storage.moves.new_jobs import NewJob, count_new_jobs, insert_jobs
from docmill.storage.moves.submitter_lock import require_mine, this_process
from docmill.storage.states import BatchState, DocumentState
from docmill.storage.tables import Batch, Chunk, Document, Job

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no letters that look like digits


@dataclass(frozen=True, slots=True)
class NewBatch:
    """What a submission decides before it reads the first document. `plan` is the producer's own."""

    submission_key: str
    model: str
    task: str
    plan: Mapping[str, Any]
    metadata: Mapping[str, str]
    priority: int
    deadline_s: float | None = None
    idempotency_key: str | None = None
    reuse: bool = True


@dataclass(frozen=True, slots=True)
class NewChunk:
    """One span of a document; `tokens` is its length by itself."""

    position: int
    char_start: int
    char_end: int
    tokens: int
    text: str


class Submissions:
    """The submitter's hand on the tables."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, new: NewBatch) -> str:
        """Store an empty batch in state `validating`, this process its submitter; returns its id.

        Raises IdempotencyKeyTaken.
        """
        while True:
            batch_id = f"{time.strftime('%y%m%d')}-{''.join(secrets.choice(_ALPHABET) for _ in range(6))}"
            try:
                with self._database.write() as session:
                    session.execute(
                        insert(Batch).values(
                            id=batch_id,
                            submission_key=new.submission_key,
                            state=BatchState.VALIDATING,
                            model=new.model,
                            task=new.task,
                            plan=dict(new.plan),
                            notes=dict(new.metadata),
                            priority=new.priority,
                            reuse=new.reuse,
                            idempotency_key=new.idempotency_key,
                            submitter=this_process(),
                            submitter_seen_at=db_now(),
                            created_at=db_now(),
                            expires_at=None if new.deadline_s is None else db_now() + new.deadline_s,
                        )
                    )
            except IntegrityError:
                if new.idempotency_key is not None and self.with_idempotency_key(new.idempotency_key) is not None:
                    raise IdempotencyKeyTaken(new.idempotency_key) from None
                continue  # the id is taken
            return batch_id

    def with_idempotency_key(self, key: str) -> Batch | None:
        """The batch that was submitted with this key, whatever became of it."""
        with self._database.read() as session:
            return session.scalars(select(Batch).where(Batch.idempotency_key == key)).one_or_none()

    def latest_with_key(self, submission_key: str) -> Batch | None:
        """The newest batch of the same submission that can be taken up: not cancelled, expired or refused."""
        with self._database.read() as session:
            return session.scalars(
                select(Batch)
                .where(
                    Batch.submission_key == submission_key,
                    Batch.state.not_in(
                        (BatchState.FAILED, BatchState.EXPIRED, BatchState.CANCELLING, BatchState.CANCELLED)
                    ),
                )
                .order_by(Batch.created_at.desc())
                .limit(1)
            ).one_or_none()

    def known_documents(self, batch_id: str) -> set[str]:
        """The identities of the batch's documents that are wholly written."""
        with self._database.read() as session:
            return set(
                session.scalars(
                    select(Document.identity).where(
                        Document.batch_id == batch_id, Document.chunk_count.is_not(None)
                    )
                )
            )  # fmt: skip

    def discard_unfinished_documents(self, batch_id: str) -> None:
        """Remove what a submission that died left half written, so that it can be written again."""
        with self._database.write() as session:
            require_mine(session, batch_id)
            discard_half_written(session, batch_id)

    def begin_document(
        self, batch_id: str, *, name: str, source: str, content_hash: str, identity: str, remarks: Sequence[str]
    ) -> int:
        """Store a document that has no chunks yet; returns its id. Raises WrongState once the batch is cancelled."""
        with self._database.write() as session:
            require_mine(session, batch_id)
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
        """Store the next chunks of a document that is being written. Raises WrongState once the batch is cancelled."""
        with self._database.write() as session:
            require_mine(session, batch_id)
            session.execute(
                insert(Chunk),
                [
                    {
                        "document_id": document_id,
                        "position": chunk.position,
                        "char_start": chunk.char_start,
                        "char_end": chunk.char_end,
                        "tokens": chunk.tokens,
                        "text": chunk.text,
                    }
                    for chunk in chunks
                ],
            )

    def add_jobs(self, batch_id: str, document_id: int, jobs: Sequence[NewJob]) -> None:
        """Store the next jobs of a document that is being written. Raises WrongState once the batch is cancelled."""
        with self._database.write() as session:
            require_mine(session, batch_id)
            insert_jobs(session, batch_id, document_id, jobs)

    def finish_document(
        self, batch_id: str, document_id: int, *, characters: int, tokens: int, chunk_count: int, max_tokens: int | None
    ) -> None:
        """All is written: the document counts from now on. `max_tokens` is set on its jobs of level 0.

        Raises WrongState once the batch is cancelled.
        """
        with self._database.write() as session:
            require_mine(session, batch_id)
            if max_tokens is not None:
                _set_max_tokens(session, batch_id, document_id, max_tokens)
            open_jobs = session.scalar(select(func.count()).where(Job.document_id == document_id, Job.level == 0))
            session.execute(
                update(Document)
                .where(Document.id == document_id, Document.batch_id == batch_id, Document.chunk_count.is_(None))
                .values(characters=characters, tokens=tokens, chunk_count=chunk_count, open_jobs=open_jobs)
                .returning(Document.id)
            ).one()
            session.execute(
                update(Batch)
                .where(Batch.id == batch_id)
                .values(
                    documents_total=Batch.documents_total + 1, documents_open=Batch.documents_open + 1
                )
            )  # fmt: skip

    def start(self, batch_id: str) -> None:
        """All documents are written: the batch is in progress, its jobs may be published."""
        self._move(batch_id, BatchState.VALIDATING, BatchState.IN_PROGRESS)

    def refuse(self, batch_id: str, reason: str) -> None:
        """Validation failed: nothing of this batch will run."""
        self._move(batch_id, BatchState.VALIDATING, BatchState.FAILED, error=reason)

    def _move(self, batch_id: str, source: BatchState, target: BatchState, **values: Any) -> None:
        stamp = {f"{target}_at": db_now()}
        with self._database.write() as session:
            moved = session.execute(
                update(Batch)
                .where(Batch.id == batch_id, Batch.state == source, Batch.submitter == this_process())
                .values(state=target, **stamp, **values)
                .returning(Batch.id)
            ).one_or_none()
        if moved is None:
            raise WrongState(batch_id, self._state(batch_id), f"it was expected to be {source}")

    def _state(self, batch_id: str) -> str:
        with self._database.read() as session:
            return session.scalar(select(Batch.state).where(Batch.id == batch_id)) or "gone"


def discard_half_written(session: Session, batch_id: str) -> None:
    """Remove the batch's documents that are not wholly written, with all that is theirs."""
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
    spared = session.scalar(
        select(func.coalesce(func.sum(Job.max_tokens - max_tokens), 0)).where(
            Job.document_id == document_id, Job.level == 0
        )
    )
    session.execute(update(Job).where(Job.document_id == document_id, Job.level == 0).values(max_tokens=max_tokens))
    session.execute(update(Batch).where(Batch.id == batch_id).values(tokens_planned=Batch.tokens_planned - spared))
