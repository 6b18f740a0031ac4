"""What a document's texts were made of: its chunks, and which answers each job read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from docmill.storage.database import Database
from docmill.storage.states import DocumentState
from docmill.storage.tables import Batch, Chunk, Document, Job, Result


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """Characters `char_start` to `char_end` of the document's text."""

    position: int
    char_start: int
    char_end: int
    text: str


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What a job wrote, and which of the level below it read."""

    job_id: int
    level: int
    position: int
    first_input: int
    last_input: int
    text: str


@dataclass(frozen=True, slots=True)
class FinalText:
    """A document's summary. `job_id` None: the answers of its level, joined."""

    job_id: int | None
    level: int
    text: str


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """All that a document's summary was made of, in order; `final` None: it has none (yet)."""

    id: int
    batch_id: str
    name: str
    source: str
    state: DocumentState
    plan: Mapping[str, Any]
    chunks: Sequence[StoredChunk]
    answers: Sequence[StoredAnswer]
    final: FinalText | None


def stored_document(database: Database, document_id: int) -> StoredDocument:
    """Everything of one document, as it is now."""
    with database.read() as session:
        document, plan = session.execute(
            select(Document, Batch.plan).join(Batch, Batch.id == Document.batch_id).where(Document.id == document_id)
        ).one()
        chunks = session.execute(
            select(Chunk.position, Chunk.char_start, Chunk.char_end, Chunk.text)
            .where(Chunk.document_id == document_id)
            .order_by(Chunk.position)
        ).all()
        answers = session.execute(
            select(Job.id, Job.level, Job.position, Job.first_input, Job.last_input, Result.text)
            .join(Result, Result.job_id == Job.id)
            .where(Job.document_id == document_id)
            .order_by(Job.level, Job.position)
        ).all()
        final = session.execute(
            select(Result.job_id, Result.level, Result.text).where(Result.document_id == document_id, Result.final)
        ).one_or_none()
    return StoredDocument(
        document.id,
        document.batch_id,
        document.name,
        document.source,
        document.state,
        plan,
        [StoredChunk(*row) for row in chunks],
        [StoredAnswer(*row) for row in answers],
        FinalText(*final) if final else None,
    )
