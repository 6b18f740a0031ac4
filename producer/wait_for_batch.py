"""A batch's status for as long as it lasts, though the database is away in between."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from docmill.storage.errors import DatabaseUnavailable
from docmill.storage.reads.batch_status import BatchStatus
from docmill.storage.reads.reports import Reports

log = logging.getLogger(__name__)


def follow(reports: Reports, batch_id: str, *, interval_s: float) -> Iterator[BatchStatus]:
    """The batch's status every `interval_s` seconds, the last when it has ended.

    While the database is away, which is logged once, it is the last known. Raises DatabaseUnavailable only where it
    does not answer at the beginning.
    """
    status, is_away = reports.batch(batch_id), False
    while True:
        yield status
        if status.state.is_terminal:
            return
        time.sleep(interval_s)
        try:
            status = reports.batch(batch_id)
        except DatabaseUnavailable as error:
            if not is_away:
                log.warning("%s; trying again until it answers", error)
            is_away = True
            continue
        if is_away:
            log.warning("the database answers again")
        is_away = False
