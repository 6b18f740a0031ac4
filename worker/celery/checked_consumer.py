"""Celery's consumer, given only messages that are what a message of docmill may be."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery.worker.consumer import Consumer

from docmill.broker.errors import MessageRefused
from docmill.broker.message import job_id_of

log = logging.getLogger(__name__)


class CheckedConsumer(Consumer):  # type: ignore[misc] # Celery has no types
    """Gives up what is no announcement of a job before Celery looks at it."""

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """What is called with each message."""
        receive = super().create_task_handler(*args, **kwargs)

        def receive_checked(message: Any) -> None:
            try:
                job_id_of(message)
            except MessageRefused as error:
                log.warning("%s", error)
                message.reject_log_error(log, self.connection_errors)
            else:
                receive(message)

        return receive_checked
