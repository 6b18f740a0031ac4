"""Celery's consumer where the broker answers but takes nothing: its memory or disk is full, or it is only to be read.

Left to itself it would take a message, fail to note that it has it, lose it, begin again and take the next.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from celery.worker.state import maybe_shutdown

from docmill.broker.errors import BrokerFull, BrokerUnavailable
from docmill.broker.publish import ping
from docmill.worker.celery.checked_consumer import CheckedConsumer

log = logging.getLogger(__name__)
_AGAIN_S = 1.0


class WaitingConsumer(CheckedConsumer):
    """Takes up no connection before the broker can be written. What runs goes on meanwhile."""

    def connect(self) -> Any:
        """Called by Celery at its start and after every error of its connection."""
        has_said = False
        while (error := self._what_is_wrong()) is not None:
            if not has_said:
                log.warning("%s; no job is taken until it does", error)
                has_said = True
            time.sleep(_AGAIN_S)
            maybe_shutdown()
        if has_said:
            log.warning("the broker takes messages again")
        return super().connect()

    def _what_is_wrong(self) -> BrokerFull | None:
        try:
            ping(self.app)
        except BrokerFull as error:
            return error
        except BrokerUnavailable:
            return None  # Celery waits for one that does not answer
        return None
