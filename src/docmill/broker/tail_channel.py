"""Carry the text of running jobs from workers to `docmill tail` through Redis publish/subscribe.

A reader asks four times a second for the text of a job beyond what it already has; for a few seconds after each
request, the worker that runs the job publishes new text on the job's channel. Without requests nothing is sent, stored
or polled. Lost messages are requested again, because each piece states where in the text it begins.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from redis.client import PubSub
from redis.exceptions import RedisError

from docmill.broker.errors import BrokerUnavailable
from docmill.broker.redis_client import redis_client
from docmill.settings.masking import mask

_REQUEST_EVERY_S = 0.25
_LISTEN_S = 1.0
_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class TextRequest:
    """A request for a job's text after its first `have` characters; for all of it if the attempt is not `epoch`."""

    job_id: int
    epoch: int
    have: int


@dataclass(frozen=True, slots=True)
class TextPiece:
    """Text of a job's attempt, beginning at character `at`."""

    job_id: int
    epoch: int
    at: int
    text: str


class TailChannel:
    """A connection for readers and workers. All methods raise BrokerUnavailable if Redis does not answer."""

    def __init__(self, broker_url: str) -> None:
        self.url = broker_url
        self._redis = redis_client(broker_url, timeout_s=_TIMEOUT_S, health_check_s=_TIMEOUT_S)
        # All databases of a server share their channels, but not the ids of jobs.
        self._prefix = f"docmill.{self._redis.get_connection_kwargs().get('db') or 0}.tail"

    def requests(self) -> Iterator[TextRequest | None]:
        """The requests of readers, and None after about a second without one; never ends."""
        with _as_broker_errors(self.url), self._subscribe(self._prefix) as subscription:
            while True:
                message = subscription.get_message(timeout=_LISTEN_S)
                yield None if message is None else TextRequest(**json.loads(message["data"]))

    def request(self, request: TextRequest) -> None:
        """Ask the workers for a job's text."""
        self._publish(self._prefix, request)

    def send(self, piece: TextPiece) -> None:
        """Send a piece of text to the readers of its job."""
        self._publish(f"{self._prefix}.{piece.job_id}", piece)

    @contextmanager
    def read(self, job_id: int) -> Iterator[JobTextReader]:
        """Read the text of one job within the block."""
        with _as_broker_errors(self.url):
            subscription = self._subscribe(f"{self._prefix}.{job_id}")
        with subscription:
            yield JobTextReader(self, subscription, job_id)

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def _publish(self, channel: str, message: TextRequest | TextPiece) -> None:
        with _as_broker_errors(self.url):
            self._redis.publish(channel, json.dumps(asdict(message), ensure_ascii=False))

    def _subscribe(self, channel: str) -> PubSub:
        subscription = PubSub(self._redis.connection_pool, ignore_subscribe_messages=True)
        subscription.subscribe(channel)
        return subscription


class JobTextReader:
    """A subscription to the text of one job. `text` is what attempt `epoch` has written so far."""

    def __init__(self, channel: TailChannel, subscription: PubSub, job_id: int) -> None:
        self._channel = channel
        self._subscription = subscription
        self._job_id = job_id
        self._requested_at = 0.0
        self.epoch = 0
        self.text = ""

    def new_text(self, timeout_s: float) -> str:
        """What the attempt has written beyond `text`; "" after `timeout_s` or less.

        When a new attempt begins, `epoch` changes and `text` starts again.
        """
        now = time.monotonic()
        if now - self._requested_at >= _REQUEST_EVERY_S:
            self._requested_at = now
            self._channel.request(TextRequest(self._job_id, self.epoch, len(self.text)))
        with _as_broker_errors(self._channel.url):
            message = self._subscription.get_message(timeout=min(timeout_s, _REQUEST_EVERY_S))
        return "" if message is None else self._take(TextPiece(**json.loads(message["data"])))

    def _take(self, piece: TextPiece) -> str:
        if piece.epoch > self.epoch:
            self.epoch, self.text = piece.epoch, ""
        if piece.epoch < self.epoch or piece.at > len(self.text):  # of an old attempt, or an earlier piece was lost
            return ""
        new = piece.text[len(self.text) - piece.at :]
        self.text += new
        return new


@contextmanager
def _as_broker_errors(url: str) -> Iterator[None]:
    """Turn the errors of Redis into BrokerUnavailable."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise BrokerUnavailable(mask(url), mask(str(error))) from error
