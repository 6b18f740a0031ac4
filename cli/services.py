"""`docmill dispatcher`, and where a service finds its broker."""

from __future__ import annotations

import logging
import signal
import threading

import click

from broker.app import make_app
from broker.embedded import awaited_url
from broker.errors import EmbeddedBrokerFailed
from broker.exporter import MetricsEndpoint, export
from cli.context import CliContext, pass_context
from cli.logs import configure_logging
from cli.options import metrics_address_option, metrics_port_option
from producer.client import Client, broker_directory
from settings.model import Settings
from storage.live_status import LiveStatus

log = logging.getLogger(__name__)

_BROKER_PATIENCE_S = 10.0


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
    app = make_app(service_broker_url(context.settings))
    service = client.dispatcher(app)
    chosen = context.settings.producer
    if (port := metrics_port or chosen.metrics_port) is not None:
        from producer.metrics import DispatcherMetrics

        registry = export(MetricsEndpoint(port, metrics_address or chosen.metrics_address))
        registry.register(DispatcherMetrics(service.counts, LiveStatus(client.database)))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    log.info("dispatcher at work on %s", client.database)
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
