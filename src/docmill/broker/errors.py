"""What can go wrong between docmill and its broker."""

from __future__ import annotations

from docmill.errors import DocmillError


class BrokerError(DocmillError):
    """Base of the broker package's errors."""


class BrokerUnavailable(BrokerError):
    """The broker does not answer or refuses messages."""

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        super().__init__(f"the broker {url} does not take messages: {reason}")


class BrokerFull(BrokerUnavailable):
    """The broker answers, but takes nothing: its memory or disk is full, or it is only to be read."""


class MessageRefused(BrokerError):
    """A message is not one that docmill sends."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"refused a message of the queue: {reason}")


class EmbeddedBrokerFailed(BrokerError):
    """The embedded Valkey cannot be started here."""


class MetricsPortTaken(BrokerError):
    """The metrics cannot be served where they were asked for."""

    def __init__(self, address: str, port: int, reason: str) -> None:
        super().__init__(f"metrics on {address}:{port}: {reason}; choose another --metrics-port")
