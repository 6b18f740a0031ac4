"""Find the broker and the database of a service, and wait for them while they start."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from docmill.broker.embedded_broker import wait_for_url
from docmill.broker.errors import EmbeddedBrokerFailed
from docmill.producer.composition import broker_directory
from docmill.settings.defaults import Settings
from docmill.storage.errors import DatabaseUnavailable

T = TypeVar("T")

log = logging.getLogger(__name__)

_BROKER_PATIENCE_S = 10.0
_DATABASE_PATIENCE_S = 60.0


def service_broker_url(settings: Settings, *, patience_s: float = _BROKER_PATIENCE_S) -> str:
    """The configured broker, or the embedded one that `docmill up` runs. Raises EmbeddedBrokerFailed.

    An embedded one that was killed, or is being started, is waited for up to `patience_s` seconds.
    """
    url = settings.broker.url or wait_for_url(broker_directory(settings), patience_s)
    if url is None:
        raise EmbeddedBrokerFailed(
            "no broker: set broker.url (or DOCMILL_BROKER__URL) to a Redis, or run `docmill up` on this machine first"
        )
    return url


def await_database(opened: Callable[[], T]) -> T:
    """What `opened` returns as soon as the database answers. Raises DatabaseUnavailable after a minute."""
    retrying = Retrying(
        retry=retry_if_exception_type(DatabaseUnavailable),
        stop=stop_after_delay(_DATABASE_PATIENCE_S),
        wait=wait_fixed(0.5),
        before_sleep=_say_once,
        reraise=True,
    )
    return retrying(opened)


def _say_once(state: RetryCallState) -> None:
    if state.attempt_number == 1 and state.outcome is not None:
        log.warning("%s; waiting up to %g s for it", state.outcome.exception(), _DATABASE_PATIENCE_S)
