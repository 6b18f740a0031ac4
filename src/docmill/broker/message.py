"""What a message may be: a call of docmill's one task with the id of a job, and nothing else.

Whoever can write to the broker can lay anything on a queue. Some of it makes Celery stop and put the message back,
to be stopped by it again: so a worker looks here first.
"""

from __future__ import annotations

from typing import Protocol

from docmill.broker.celery_app import TASK_NAME
from docmill.broker.errors import MessageRefused

_LAST_ID = 2**63 - 1


class Delivered(Protocol):
    """What is needed of kombu's message. `payload` raises whatever decoding raises."""

    @property
    def headers(self) -> object: ...
    @property
    def payload(self) -> object: ...


def job_id_of(message: Delivered) -> int:
    """The id of the job that this message announces. Raises MessageRefused."""
    headers = message.headers
    if not isinstance(headers, dict) or headers.get("task") != TASK_NAME or not isinstance(headers.get("id"), str):
        raise MessageRefused("it is no call of docmill's task")
    try:
        payload = message.payload
    except Exception as error:  # a serializer's and a codec's own kinds
        raise MessageRefused(f"it cannot be read: {type(error).__name__}") from error
    match payload:
        case [[int() as job_id], {**named}, dict() as beside] if not named and not any(beside.values()):
            if type(job_id) is int and 0 < job_id <= _LAST_ID:
                return job_id
    raise MessageRefused("it holds something other than the id of a job")
