"""`docmill dispatcher`, and how a service finds its broker and its database."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from typing import TypeVar

import click
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from docmill.broker.app import make_app
from docmill.broker.embedded import awaited_url
from docmill.broker.errors import EmbeddedBrokerFailed
from docmill.broker.exporter import MetricsEndpoint, export
from docmill.cli.context import CliContext, pass_context
from docmill.cli.logs import configure_logging
from docmill.cli.options import metrics_address_option, metrics_port_option
from docmill.producer.client import Client, broker_directory
from docmill.settings.model import Settings
from docmill.storage.errors import DatabaseUnavailable
from docmill.storage.live_status import LiveStatus

T = TypeVar("T")

log = logging.getLogger(__name__)

_BROKER_PATIENCE_S = 10.0
_DATABASE_PATIENCE_S = 60.0


@click.command(epilog="\b\nExamples:\n  docmill dispatcher\n  docmill dispatcher --metrics-port 9100")
@metrics_port_option
@metrics_address_option
@pass_context
def dispatcher(context: CliContext, metrics_port: int | None, metrics_address: str | None) -> None:
    """Keep the queues filled, rescue lost jobs, plan merges, end batches.

    Any number of dispatchers may run; one is enough, two survive a host.
    """
    configure_logging()
    client = Client(context.settings)
    database = await_database(lambda: client.database)
    app = make_app(service_broker_url(context.settings))
    service = client.dispatcher(app)
    chosen = context.settings.producer
    if (port := metrics_port or chosen.metrics_port) is not None:
        from docmill.producer.metrics import DispatcherMetrics

        registry = export(MetricsEndpoint(port, metrics_address or chosen.metrics_address))
        registry.register(DispatcherMetrics(service.counts, LiveStatus(database)))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    log.info("dispatcher at work on %s", database)
    service.run(stop)


def service_broker_url(settings: Settings, *, patience_s: float = _BROKER_PATIENCE_S) -> str:
    """The configured broker, or the embedded one that `docmill up` runs. Raises EmbeddedBrokerFailed.

    An embedded one that was killed, or is being started, is waited for up to `patience_s` seconds.
    """
    url = settings.broker.url or awaited_url(broker_directory(settings), patience_s)
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
