"""Follow a batch until it has ended, also through an outage of the database."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from docmill.settings.defaults import STATUS_POLL_S
from docmill.storage.errors import DatabaseUnavailable
from docmill.storage.reads.batch_status import BatchStatus
from docmill.storage.reads.reports import Reports

log = logging.getLogger(__name__)


def batch_statuses(
    reports: Reports, batch_id: str, *, interval_s: float = STATUS_POLL_S, timeout_s: float | None = None
) -> Iterator[BatchStatus]:
    """The batch's status every `interval_s` seconds; the last one is that of the ended batch.

    While the database does not answer, which is logged once, the last known status is repeated. Raises
    DatabaseUnavailable if the database does not answer the first query, and TimeoutError after `timeout_s` seconds.
    """
    stop_at = None if timeout_s is None else time.monotonic() + timeout_s
    status, is_away = reports.batch(batch_id), False
    while True:
        yield status
        if status.state.is_terminal:
            return
        if stop_at is not None and time.monotonic() > stop_at:
            raise TimeoutError(f"batch {batch_id} is still {status.state} after {timeout_s:g} s")
        time.sleep(interval_s)
        try:
            status = reports.batch(batch_id)
        except DatabaseUnavailable as error:
            if not is_away:
                log.warning("%s; retrying until it responds", error)
            is_away = True
            continue
        if is_away:
            log.warning("the database responds again")
        is_away = False
