"""Whether Celery's worker takes messages: stopped and begun again while it runs, as the worker's row asks."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger(__name__)


class Consuming:
    """The one queue of a Celery worker. `pause` may be called from any thread, at every heartbeat."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._celery_worker: Any = None
        self._is_paused = False

    def of(self, celery_worker: Any) -> None:
        """Speak of this Celery worker from now on; a new one takes messages."""
        self._celery_worker = celery_worker
        self._is_paused = False

    def pause(self, wanted: bool) -> None:  # noqa: FBT001 - a state, as the row holds it
        """Take messages, or none; what runs goes on. Where the broker is away it is done at a later call."""
        consumer = getattr(self._celery_worker, "consumer", None)
        if consumer is not None and wanted != self._is_paused:
            consumer.call_soon(self._change, consumer, wanted)

    def _change(self, consumer: Any, wanted: bool) -> None:  # noqa: FBT001
        """In Celery's own loop, where an exception would end it."""
        if wanted == self._is_paused:
            return
        try:
            (consumer.cancel_task_queue if wanted else consumer.add_task_queue)(self._queue)
        except Exception as error:  # noqa: BLE001 - whatever kombu raises while its connection is away
            log.warning("%s the worker failed, trying again: %s", "pausing" if wanted else "resuming", error)
            return
        self._is_paused = wanted
        log.info("the worker is paused: it takes no further jobs" if wanted else "the worker takes jobs again")
