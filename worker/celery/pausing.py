"""Pause and resume a worker: stop consuming its queue and start again, as its row in the database asks."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger(__name__)


class PausableQueue:
    """The queue that a Celery worker consumes. `set_paused` is called from any thread, with every heartbeat."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._celery_worker: Any = None
        self._is_paused = False

    def attach(self, celery_worker: Any) -> None:
        """Control this Celery worker from now on; a new worker consumes."""
        self._celery_worker = celery_worker
        self._is_paused = False

    def set_paused(self, paused: bool) -> None:  # noqa: FBT001 - a state, as in the row
        """Pause or resume; running jobs continue. While the broker is not connected, a later call takes effect."""
        consumer = getattr(self._celery_worker, "consumer", None)
        if consumer is not None and paused != self._is_paused:
            consumer.call_soon(self._change, consumer, paused)

    def _change(self, consumer: Any, paused: bool) -> None:  # noqa: FBT001
        """In Celery's event loop, which an exception would end."""
        if paused == self._is_paused:
            return
        try:
            (consumer.cancel_task_queue if paused else consumer.add_task_queue)(self._queue)
        except Exception as error:  # noqa: BLE001 - whatever kombu raises without a connection
            log.warning("%s the worker failed; it is tried again: %s", "pausing" if paused else "resuming", error)
            return
        self._is_paused = paused
        log.info("the worker is paused: it takes no further jobs" if paused else "the worker takes jobs again")
