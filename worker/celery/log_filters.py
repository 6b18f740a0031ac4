"""Keep repeated and irrelevant messages of Celery and kombu out of a worker's log."""

from __future__ import annotations

import logging
import time

_REPEAT_S = 600.0


def quiet_celery() -> None:
    """Install the filters in this process."""
    logging.getLogger("kombu.transport.redis").addFilter(RepeatFilter())
    logging.getLogger("py.warnings").addFilter(is_not_celery_deprecation)


class RepeatFilter(logging.Filter):
    """Lets a message through once in ten minutes, without its traceback.

    While Redis is full, kombu logs the same error every second.
    """

    def __init__(self) -> None:
        super().__init__()
        self._logged_at: dict[object, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now - self._logged_at.get(record.msg, -_REPEAT_S) < _REPEAT_S:
            return False
        self._logged_at[record.msg] = now
        if record.exc_info and record.exc_info[1]:
            record.msg, record.exc_info = f"{record.msg}: {record.exc_info[1]}", None
        return True


def is_not_celery_deprecation(record: logging.LogRecord) -> bool:
    """A filter: at each lost connection, Celery logs a paragraph about the behaviour of a future version."""
    return "CPendingDeprecationWarning" not in record.getMessage()
