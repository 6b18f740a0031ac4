"""What a document's summary was generated from: its chunks, and which answers each job read."""

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
    """The answer of a job, and which answers of the level below it read: `first_input` to `last_input`."""

    job_id: int
    level: int
    position: int
    first_input: int
    last_input: int
    text: str


@dataclass(frozen=True, slots=True)
class FinalText:
    """A document's summary. If `job_id` is None, it joins the answers of its level."""

    job_id: int | None
    level: int
    text: str


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document with its chunks and answers in order; `final` is None if there is no summary (yet)."""

    id: int
    batch_id: str
    name: str
    source: str
    state: DocumentState
    plan: Mapping[str, Any]
    chunks: Sequence[StoredChunk]
    answers: Sequence[StoredAnswer]
    final: FinalText | None


def read_document(database: Database, document_id: int) -> StoredDocument:
    """Everything stored for one document now."""
    with database.read() as session:
        document = session.execute(
            select(Document.id, Document.batch_id, Document.name, Document.source, Document.state, Batch.plan)
            .join(Batch, Batch.id == Document.batch_id)
            .where(Document.id == document_id)
        ).one()
        chunks = session.execute(
            select(Chunk.position, Chunk.char_start, Chunk.char_end, Chunk.text)
            .where(Chunk.document_id == document_id)
            .order_by(Chunk.position)
        )
        answers = session.execute(
            select(Job.id, Job.level, Job.position, Job.first_input, Job.last_input, Result.text)
            .join(Result, Result.job_id == Job.id)
            .where(Job.document_id == document_id)
            .order_by(Job.level, Job.position)
        )
        final = session.execute(
            select(Result.job_id, Result.level, Result.text).where(Result.document_id == document_id, Result.final)
        ).one_or_none()
        return StoredDocument(
            **document._asdict(),
            chunks=[StoredChunk(*row) for row in chunks],
            answers=[StoredAnswer(*row) for row in answers],
            final=FinalText(*final) if final else None,
        )
