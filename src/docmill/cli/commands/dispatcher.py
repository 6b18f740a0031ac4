"""`docmill dispatcher`."""

from __future__ import annotations

import logging

import click

from docmill.cli.context import CliContext, pass_context
from docmill.cli.options import metrics_address_option, metrics_port_option

log = logging.getLogger(__name__)


@click.command(epilog="\b\nExamples:\n  docmill dispatcher\n  docmill dispatcher --metrics-port 9100")
@metrics_port_option
@metrics_address_option
@pass_context
def dispatcher(context: CliContext, metrics_port: int | None, metrics_address: str | None) -> None:
    """Keep the queues filled, recover lost jobs, plan merges and complete batches.

    One dispatcher is enough; several may run, so that the failure of a host does not matter.
    """
    from docmill.broker.prometheus_endpoint import MetricsEndpoint, export
    from docmill.cli.services.connections import await_database, broker_app
    from docmill.cli.services.logs import configure_logging
    from docmill.cli.services.signals import stop_event
    from docmill.producer.dispatcher_metrics import DispatcherMetrics

    configure_logging()
    settings, backend = context.settings.producer, context.backend
    database = await_database(lambda: backend.database)
    service = backend.dispatcher(broker_app(context.settings))
    if (port := metrics_port or settings.metrics_port) is not None:
        registry = export(MetricsEndpoint(port, metrics_address or settings.metrics_address))
        registry.register(DispatcherMetrics(service.counts, backend.reports))
    stop = stop_event()
    log.info("dispatcher at work on %s", database)
    service.run(stop)
