"""The submitter lock: one process at a time writes a batch's documents, fenced like a job's worker.

When a submission dies, the next identical submission takes over its batch: at once if its process is known to have
ended, otherwise after two minutes in which it has written nothing.
"""

from __future__ import annotations

import os
import socket
from functools import cache

import psutil
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from docmill.storage.columns import db_now
from docmill.storage.database import Database
from docmill.storage.moves.batch_state import change_batch, wrong_state
from docmill.storage.states import BatchState
from docmill.storage.tables import Batch

_SILENT_S = 120.0  # reading one large document may take this long between two transactions


@cache
def this_process() -> str:
    """Identify this process among those of all hosts: host name, process id and start time."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.2f}"


def take_over(database: Database, batch_id: str) -> bool:
    """Become the submitter of a half-written batch. False: its submitter is still at work, or has finished it."""
    with database.write() as session:
        submitter = session.scalar(select(Batch.submitter).where(Batch.id == batch_id))
        free = or_(Batch.submitter.is_(None), Batch.submitter_seen_at < db_now() - _SILENT_S)
        if submitter is not None and (submitter == this_process() or _is_gone(submitter)):
            free = or_(free, Batch.submitter == submitter)
        return change_batch(
            session, batch_id, (BatchState.VALIDATING,), free, submitter=this_process(), submitter_seen_at=db_now()
        )


def require_submitter(session: Session, batch_id: str) -> None:
    """Lock a batch that this process is submitting until the transaction ends. Raises WrongState if it is not."""
    is_mine = Batch.submitter == this_process()
    if change_batch(session, batch_id, (BatchState.VALIDATING,), is_mine, submitter_seen_at=db_now()):
        return
    state = session.scalar(select(Batch.state).where(Batch.id == batch_id))
    is_validating = state is BatchState.VALIDATING
    raise wrong_state(
        session, batch_id, "another process is submitting it" if is_validating else "documents can no longer be added"
    )


def _is_gone(submitter: str) -> bool:
    """Return True if the process ran on this host and has ended."""
    host, pid, began = submitter.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    try:
        return f"{psutil.Process(int(pid)).create_time():.2f}" != began
    except psutil.NoSuchProcess:
        return True
