"""Who writes a batch's documents: one process at a time, fenced like a job's worker.

A submission that died is taken up by the next same one: at once where its process is seen to be gone, otherwise
when it has written nothing for a while.
"""

from __future__ import annotations

import os
import socket
from functools import cache

import psutil
from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from docmill.storage.columns import db_now
from docmill.storage.database import Database
from docmill.storage.errors import WrongState
from docmill.storage.states import BatchState
from docmill.storage.tables import Batch

_SILENT_S = 120.0  # reading one large document may take so long between two transactions


@cache
def this_process() -> str:
    """This process among all of all hosts: host, process id, and when it began."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.2f}"


def take_up(database: Database, batch_id: str) -> bool:
    """Become the submitter of a batch that another left half written. False: that one is at work, or has ended it."""
    with database.write() as session:
        submitter = session.scalar(select(Batch.submitter).where(Batch.id == batch_id))
        free = or_(Batch.submitter.is_(None), Batch.submitter_seen_at < db_now() - _SILENT_S)
        if submitter is not None and (submitter == this_process() or _is_gone(submitter)):
            free = or_(free, Batch.submitter == submitter)
        taken = session.execute(
            update(Batch)
            .where(Batch.id == batch_id, Batch.state == BatchState.VALIDATING, free)
            .values(submitter=this_process(), submitter_seen_at=db_now())
            .returning(Batch.id)
        ).one_or_none()
    return taken is not None


def require_mine(session: Session, batch_id: str) -> None:
    """Hold the batch in `validating`, and as this process' own, until the transaction ends. Raises WrongState."""
    mine = session.execute(
        update(Batch)
        .where(Batch.id == batch_id, Batch.state == BatchState.VALIDATING, Batch.submitter == this_process())
        .values(submitter_seen_at=db_now())
        .returning(Batch.id)
    ).one_or_none()
    if mine is not None:
        return
    state = session.scalar(select(Batch.state).where(Batch.id == batch_id))
    if state is BatchState.VALIDATING:
        raise WrongState(batch_id, str(state), "another process submits it now")
    raise WrongState(batch_id, str(state or "gone"), "it takes no more documents")


def _is_gone(submitter: str) -> bool:
    """Whether this process ran on this host and has ended."""
    host, pid, began = submitter.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    try:
        return f"{psutil.Process(int(pid)).create_time():.2f}" != began
    except psutil.NoSuchProcess:
        return True
