"""Where a service's metrics can be read by Prometheus: plain HTTP, on loopback unless told otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from docmill.broker.errors import MetricsPortTaken

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


@dataclass(frozen=True, slots=True)
class MetricsEndpoint:
    """`GET http://address:port/metrics`."""

    port: int
    address: str


def export(endpoint: MetricsEndpoint) -> CollectorRegistry:
    """Answer in a thread while the process lives; what is put into the registry is shown. Raises MetricsPortTaken."""
    from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics, start_http_server

    disable_created_metrics()  # type: ignore[no-untyped-call] # a series more for each counter, which nothing here asks for
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    try:
        start_http_server(endpoint.port, endpoint.address, registry)
    except OSError as error:
        raise MetricsPortTaken(endpoint.address, endpoint.port, error.strerror or str(error)) from error
    return registry
