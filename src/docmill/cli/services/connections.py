"""Connects a service to its broker and its database, and waits for them while they start."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from celery import Celery
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from docmill.broker.celery_app import make_app
from docmill.broker.embedded_broker import wait_for_url
from docmill.broker.errors import EmbeddedBrokerFailed
from docmill.producer.composition import broker_directory
from docmill.settings.defaults import Settings
from docmill.storage.errors import DatabaseUnavailable

T = TypeVar("T")

log = logging.getLogger(__name__)

_BROKER_TIMEOUT_S = 10.0
_DATABASE_TIMEOUT_S = 60.0


def broker_url(settings: Settings, *, timeout_s: float = _BROKER_TIMEOUT_S) -> str:
    """The configured broker, or the embedded one of `docmill up`. Raises EmbeddedBrokerFailed.

    Waits up to `timeout_s` seconds for an embedded broker that was killed or is starting.
    """
    url = settings.broker.url or wait_for_url(broker_directory(settings), timeout_s)
    if url is None:
        raise EmbeddedBrokerFailed(
            "no broker: set broker.url (or DOCMILL_BROKER__URL) to a Redis, or run `docmill up` on this machine first"
        )
    return url


def broker_app(settings: Settings, *, timeout_s: float = _BROKER_TIMEOUT_S) -> Celery:
    """The Celery app on `broker_url`."""
    return make_app(broker_url(settings, timeout_s=timeout_s))


def await_database(open_database: Callable[[], T]) -> T:
    """Call `open_database` until the database answers. Raises DatabaseUnavailable after a minute."""
    retrying = Retrying(
        retry=retry_if_exception_type(DatabaseUnavailable),
        stop=stop_after_delay(_DATABASE_TIMEOUT_S),
        wait=wait_fixed(0.5),
        before_sleep=_log_first_failure,
        reraise=True,
    )
    return retrying(open_database)


def _log_first_failure(state: RetryCallState) -> None:
    if state.attempt_number == 1 and state.outcome is not None:
        log.warning("%s; waiting up to %g s for it", state.outcome.exception(), _DATABASE_TIMEOUT_S)
