"""A worker's moves on a database that may be away: full, locked, read-only, restarting.

Whoever moves waits and tries again; the worker says once that the database is away, and once that it answers.
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
_STORE_S = 600.0  # how long a finished text is kept for a database that does not answer
_CLOSING_S = 10.0  # and when the worker shall end
_WAIT_S = 5.0


class Patience:
    """Shared by a worker's threads. `is_closing` says that the worker shall end."""

    def __init__(self, is_closing: Callable[[], bool]) -> None:
        self.is_closing = is_closing
        self._away = threading.Event()

    def take(self, move: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Make a move that nothing depends on yet: tried until the worker closes. Raises DatabaseUnavailable then."""
        return self._retrying(lambda _: self.is_closing())(self._noticed(move), *args, **kwargs)

    def store(self, move: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Make a move that stores work already done. Raises DatabaseUnavailable after ten minutes, or seconds."""
        return self._retrying(self._has_waited_enough)(self._noticed(move), *args, **kwargs)

    def _has_waited_enough(self, state: RetryCallState) -> bool:
        waited_s = state.seconds_since_start or 0.0
        return waited_s > (_CLOSING_S if self.is_closing() else _STORE_S)

    def _retrying(self, stop: Callable[[RetryCallState], bool]) -> Retrying:
        return Retrying(
            retry=retry_if_exception_type(DatabaseUnavailable),
            wait=wait_random_exponential(multiplier=0.2, max=_WAIT_S),
            stop=stop,
            reraise=True,
        )

    def _noticed(self, move: Callable[P, T]) -> Callable[P, T]:
        def noticing(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                made = move(*args, **kwargs)
            except DatabaseUnavailable as error:
                if not self._away.is_set():
                    self._away.set()
                    log.warning("%s; no job is taken until it answers", error)
                raise
            if self._away.is_set():
                self._away.clear()
                log.warning("the database answers again")
            return made

        return noticing
