"""What can go wrong between docmill and its broker."""

from __future__ import annotations


class BrokerError(Exception):
    """Base of the broker package's errors."""


class BrokerUnavailable(BrokerError):
    """The broker does not answer or refuses messages."""

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        super().__init__(f"the broker {url} does not take messages: {reason}")


class EmbeddedBrokerFailed(BrokerError):
    """The embedded Valkey cannot be started here."""
