"""What Celery and kombu say again and again, or to nobody, is kept out of a worker's log."""

from __future__ import annotations

import logging
import time

_REPEAT_S = 600.0


def quiet_celery() -> None:
    """Put the filters in place, for this process."""
    logging.getLogger("kombu.transport.redis").addFilter(SaysOnce())
    logging.getLogger("py.warnings").addFilter(is_no_plan_of_celery)


class SaysOnce(logging.Filter):
    """Lets a message be repeated only every ten minutes, without its traceback: kombu says each second that Redis is
    full."""

    def __init__(self) -> None:
        super().__init__()
        self._said_at: dict[object, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now - self._said_at.get(record.msg, -_REPEAT_S) < _REPEAT_S:
            return False
        self._said_at[record.msg] = now
        if record.exc_info and record.exc_info[1]:
            record.msg, record.exc_info = f"{record.msg}: {record.exc_info[1]}", None
        return True


def is_no_plan_of_celery(record: logging.LogRecord) -> bool:
    """A filter: at each lost connection Celery tells, in a paragraph, what a later version will do about it."""
    return "CPendingDeprecationWarning" not in record.getMessage()
