"""Change a batch only from an expected state, in one UPDATE."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from docmill.storage.errors import NoSuchBatch, StorageError, WrongState
from docmill.storage.states import BatchState
from docmill.storage.tables import Batch


def change_batch(
    session: Session, batch_id: str, expected: tuple[BatchState, ...], *conditions: ColumnElement[bool], **values: Any
) -> bool:
    """Set `values` on a batch that is in one of the expected states and meets the conditions. False: it is not."""
    statement = update(Batch).where(Batch.id == batch_id, Batch.state.in_(expected), *conditions)
    return session.execute(statement.values(**values).returning(Batch.id)).one_or_none() is not None


def wrong_state(session: Session, batch_id: str, wanted: str) -> StorageError:
    """The error to raise when the batch could not be changed: WrongState, or NoSuchBatch."""
    state = session.scalar(select(Batch.state).where(Batch.id == batch_id))
    return NoSuchBatch(batch_id) if state is None else WrongState(batch_id, state, wanted)
