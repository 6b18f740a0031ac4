"""What a valid message contains: a call of docmill's only task with the id of a job, and nothing else.

Anyone with access to the broker can put anything on a queue. Some messages make Celery stop and put the message back,
so that it stops again at the same message. A worker therefore checks each message before Celery sees it.
"""

from __future__ import annotations

from typing import Protocol

from docmill.broker.celery_app import TASK_NAME
from docmill.broker.errors import MessageRefused

_LAST_ID = 2**63 - 1


class Delivered(Protocol):
    """The parts of kombu's message that are checked. `payload` raises whatever decoding raises."""

    @property
    def headers(self) -> object: ...
    @property
    def payload(self) -> object: ...


def job_id_of(message: Delivered) -> int:
    """The id of the job that this message announces. Raises MessageRefused."""
    headers = message.headers
    if not isinstance(headers, dict) or headers.get("task") != TASK_NAME or not isinstance(headers.get("id"), str):
        raise MessageRefused("it does not call docmill's task")
    try:
        payload = message.payload
    except Exception as error:  # serializers and codecs raise errors of their own
        raise MessageRefused(f"it cannot be decoded: {type(error).__name__}") from error
    match payload:
        case [[int() as job_id], {**arguments}, dict() as embed] if not arguments and not any(embed.values()):
            if type(job_id) is int and 0 < job_id <= _LAST_ID:
                return job_id
    raise MessageRefused("it contains something other than the id of a job")
