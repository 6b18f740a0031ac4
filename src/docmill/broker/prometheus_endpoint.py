"""The HTTP endpoint from which Prometheus reads a service's metrics; on loopback by default."""

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
    """Serve the returned registry from a thread until the process ends. Raises MetricsPortTaken."""
    from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics, start_http_server

    disable_created_metrics()  # type: ignore[no-untyped-call] # no second series with each counter's creation time
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    try:
        start_http_server(endpoint.port, endpoint.address, registry)
    except OSError as error:
        raise MetricsPortTaken(endpoint.address, endpoint.port, error.strerror or str(error)) from error
    return registry
