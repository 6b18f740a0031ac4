"""Celery's consumer with two additions: it rejects malformed messages, and waits while the broker accepts no writes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

from docmill.broker.errors import BrokerFull, BrokerUnavailable, MessageRefused
from docmill.broker.message import job_id_of
from docmill.broker.publish import ping

log = logging.getLogger(__name__)
_RETRY_S = 1.0


class JobConsumer(Consumer):  # type: ignore[misc] # Celery has no types
    """The consumer of a docmill worker."""

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """Return the function that is called with each message; it rejects those that do not announce a job."""
        handle = super().create_task_handler(*args, **kwargs)

        def check_and_handle(message: Any) -> None:
            try:
                job_id_of(message)
            except MessageRefused as error:
                log.warning("%s", error)
                message.reject_log_error(log, self.connection_errors)
            else:
                handle(message)

        return check_and_handle

    def connect(self) -> Any:
        """Connect as soon as the broker accepts writes. Celery calls this at its start and after connection errors.

        A broker that is out of memory, out of disk or read-only still delivers messages. Celery would take one, fail to
        record that it has it, lose it, reconnect and take the next. Running jobs continue while this waits.
        """
        is_waiting = False
        while (error := self._write_error()) is not None:
            if not is_waiting:
                log.warning("%s; no further jobs are taken until it does", error)
                is_waiting = True
            time.sleep(_RETRY_S)
            maybe_shutdown()
        if is_waiting:
            log.warning("the broker accepts messages again")
        return super().connect()

    def _write_error(self) -> BrokerFull | None:
        try:
            ping(self.app)
        except BrokerFull as error:
            return error
        except BrokerUnavailable:
            return None  # Celery itself waits for a broker that does not respond
        return None
