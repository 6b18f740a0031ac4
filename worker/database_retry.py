"""Retry a worker's database operations while the database is unavailable: full, locked, read-only or restarting.

The worker logs once that the database is unavailable, and once that it responds again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from docmill.storage.errors import DatabaseUnavailable

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)
_DEADLINE_S = 600.0
_DEADLINE_CLOSING_S = 10.0
_WAIT_MAX_S = 5.0


class DatabaseRetry:
    """Shared by a worker's threads. `is_closing` returns True once the worker is shutting down."""

    def __init__(self, is_closing: Callable[[], bool]) -> None:
        self.is_closing = is_closing
        self._is_unavailable = threading.Event()

    def until_closing(self, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Retry until the worker shuts down, then raise DatabaseUnavailable: for operations that start new work."""
        return self._retry(lambda _: self.is_closing(), lambda: operation(*args, **kwargs))

    def with_deadline(self, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Retry for ten minutes, or ten seconds during shutdown, then raise DatabaseUnavailable: to store results."""
        return self._retry(self._is_past_deadline, lambda: operation(*args, **kwargs))

    def _is_past_deadline(self, state: RetryCallState) -> bool:
        waited_s = state.seconds_since_start or 0.0
        return waited_s > (_DEADLINE_CLOSING_S if self.is_closing() else _DEADLINE_S)

    def _retry(self, stop: Callable[[RetryCallState], bool], operation: Callable[[], T]) -> T:
        retrying = Retrying(
            retry=retry_if_exception_type(DatabaseUnavailable),
            wait=wait_random_exponential(multiplier=0.2, max=_WAIT_MAX_S),
            stop=stop,
            after=self._log_unavailable,
            reraise=True,
        )
        result = retrying(operation)
        if self._is_unavailable.is_set():
            self._is_unavailable.clear()
            log.warning("the database responds again")
        return result

    def _log_unavailable(self, state: RetryCallState) -> None:
        if not self._is_unavailable.is_set() and state.outcome is not None:
            self._is_unavailable.set()
            log.warning("%s; no further jobs are taken until it responds", state.outcome.exception())
