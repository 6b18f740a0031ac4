"""Tokens on their way to whoever looks: Redis pub/sub between `docmill tail` and the workers.

A watcher asks, four times a second, for the job's text behind what it has; the worker that holds the job answers on the
job's channel for some seconds. Nobody asks: nothing is sent, stored or polled. Messages that are lost are asked for
again, since each says where in the text it begins.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import TracebackType

from redis import Redis
from redis.backoff import NoBackoff
from redis.client import PubSub
from redis.exceptions import RedisError
from redis.retry import Retry

from docmill.broker.errors import BrokerUnavailable
from docmill.settings.masking import mask

_ASK_S = 0.25
_LISTEN_S = 1.0
_SOCKET = "redis+socket://"


@dataclass(frozen=True, slots=True)
class Ask:
    """Who holds this job sends its text behind the first `have` characters; of another attempt than `epoch`, all."""

    job_id: int
    epoch: int
    have: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Text of a job's attempt from its character `at` on."""

    job_id: int
    epoch: int
    at: int
    text: str


class TailChannel:
    """One side's connection. Raises BrokerUnavailable where Redis does not answer."""

    def __init__(self, broker_url: str) -> None:
        self.url = broker_url
        url = broker_url.replace(_SOCKET, "unix://", 1) if broker_url.startswith(_SOCKET) else broker_url
        self._redis: Redis = Redis.from_url(url, socket_timeout=5, health_check_interval=5, retry=Retry(NoBackoff(), 0))
        # Channels are common to a server's databases, job ids are not.
        self._prefix = f"docmill.{self._redis.get_connection_kwargs().get('db') or 0}.tail"

    def asks(self) -> Iterator[Ask | None]:
        """What watchers ask for, None about every second without; never ends."""
        with _translated(self.url), self._subscription() as subscription:
            subscription.subscribe(self._prefix)
            while True:
                message = subscription.get_message(timeout=_LISTEN_S)
                yield None if message is None else Ask(**json.loads(message["data"]))

    def send(self, piece: Piece) -> None:
        """Send a piece to whoever watches its job."""
        with _translated(self.url):
            self._redis.publish(f"{self._prefix}.{piece.job_id}", json.dumps(asdict(piece), ensure_ascii=False))

    def watch(self, job_id: int) -> Watching:
        """Watch a job until the block ends."""
        with _translated(self.url):
            subscription = self._subscription()
            subscription.subscribe(f"{self._prefix}.{job_id}")
        return Watching(self, subscription, job_id)

    def ask(self, ask: Ask) -> None:
        """Ask the workers."""
        with _translated(self.url):
            self._redis.publish(self._prefix, json.dumps(asdict(ask)))

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def _subscription(self) -> PubSub:
        return PubSub(self._redis.connection_pool, ignore_subscribe_messages=True)


class Watching:
    """A watcher's subscription to one job; a context manager."""

    def __init__(self, channel: TailChannel, subscription: PubSub, job_id: int) -> None:
        self._channel = channel
        self._subscription = subscription
        self._job_id = job_id
        self._asked_at = 0.0
        self.epoch = 0
        self.text = ""

    def news(self, timeout_s: float) -> str:
        """What the attempt has written beyond `text`; "" after `timeout_s`, or sooner.

        Where another attempt begins, `text` and `epoch` do too.
        """
        now = time.monotonic()
        if now - self._asked_at >= _ASK_S:
            self._asked_at = now
            self._channel.ask(Ask(self._job_id, self.epoch, len(self.text)))
        with _translated(self._channel.url):
            message = self._subscription.get_message(timeout=min(timeout_s, _ASK_S))
        return "" if message is None else self._take(Piece(**json.loads(message["data"])))

    def _take(self, piece: Piece) -> str:
        if piece.epoch > self.epoch:
            self.epoch, self.text = piece.epoch, ""
        if piece.epoch < self.epoch or piece.at > len(self.text):  # an old attempt's, or one between was lost
            return ""
        new = piece.text[len(self.text) - piece.at :]
        self.text += new
        return new

    def __enter__(self) -> Watching:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._subscription.close()


@contextmanager
def _translated(url: str) -> Iterator[None]:
    """Redis' errors leave the block as BrokerUnavailable."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise BrokerUnavailable(mask(url), mask(str(error))) from error
