"""The errors of the broker package."""

from __future__ import annotations

from docmill.errors import DocmillError


class BrokerError(DocmillError):
    """Base of the broker package's errors."""


class BrokerUnavailable(BrokerError):
    """The broker does not respond or does not accept messages."""

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        super().__init__(f"the broker {url} does not accept messages: {reason}")


class BrokerFull(BrokerUnavailable):
    """The broker answers but accepts no messages: its memory or disk is full, or it is read-only."""


class MessageRefused(BrokerError):
    """A message in the queue was not sent by docmill."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"rejected a message in the queue: {reason}")


class EmbeddedBrokerFailed(BrokerError):
    """The embedded Valkey cannot be started."""


class MetricsPortTaken(BrokerError):
    """The port for metrics cannot be opened."""

    def __init__(self, address: str, port: int, reason: str) -> None:
        super().__init__(f"metrics on {address}:{port}: {reason}; choose another --metrics-port")
