"""`docmill dispatcher`."""

from __future__ import annotations

import logging

import click

from docmill.broker.celery_app import make_app
from docmill.broker.prometheus_endpoint import MetricsEndpoint, export
from docmill.cli.context import CliContext, pass_context
from docmill.cli.options import metrics_address_option, metrics_port_option
from docmill.cli.services.connections import await_database, service_broker_url
from docmill.cli.services.logs import configure_logging
from docmill.cli.services.signals import stop_event
from docmill.producer.composition import Backend
from docmill.storage.reads.live_status import LiveStatus

log = logging.getLogger(__name__)


@click.command(epilog="\b\nExamples:\n  docmill dispatcher\n  docmill dispatcher --metrics-port 9100")
@metrics_port_option
@metrics_address_option
@pass_context
def dispatcher(context: CliContext, metrics_port: int | None, metrics_address: str | None) -> None:
    """Keep the queues filled, rescue lost jobs, plan merges, end batches.

    Any number of dispatchers may run; one is enough, two survive a host.
    """
    configure_logging()
    backend = Backend(context.settings)
    database = await_database(lambda: backend.database)
    app = make_app(service_broker_url(context.settings))
    service = backend.dispatcher(app)
    chosen = context.settings.producer
    if (port := metrics_port or chosen.metrics_port) is not None:
        from docmill.producer.dispatcher_metrics import DispatcherMetrics

        registry = export(MetricsEndpoint(port, metrics_address or chosen.metrics_address))
        registry.register(DispatcherMetrics(service.counts, LiveStatus(database)))
    stop = stop_event()
    log.info("dispatcher at work on %s", database)
    service.run(stop)
