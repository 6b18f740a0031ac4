"""How the broker is: whether it answers, how fast, what it does with its data. Asked straight, without Celery."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from docmill.broker.errors import BrokerUnavailable
from docmill.settings.masking import mask

_TIMEOUT_S = 5.0
_PINGS = 11


@dataclass(frozen=True, slots=True)
class BrokerHealth:
    """Times in seconds, memory in bytes. `clock_offset_s`: the broker's clock minus ours, right to half a `ping_s`.

    `max_memory_bytes` 0: no limit. `append_only`: every message is written down before long.
    """

    server: str
    ping_s: float
    clock_offset_s: float
    append_only: bool
    last_write_failed: bool
    eviction: str
    used_memory_bytes: int
    max_memory_bytes: int


def read_broker(url: str) -> BrokerHealth:
    """Ask the broker at this URL (as in `docmill.broker.celery_app.make_app`). Raises BrokerUnavailable."""
    try:
        with client_of(url, timeout_s=_TIMEOUT_S) as client:
            return _health(client)
    except (RedisError, OSError, ValueError) as error:
        said = str(error).splitlines()
        raise BrokerUnavailable(mask(url), mask(said[0]) if said else type(error).__name__) from error


def client_of(url: str, *, timeout_s: float) -> Redis:
    """A plain client of the server behind a broker URL, that says at once that nobody answers. Raises ValueError."""
    address = url.replace("redis+socket://", "unix://", 1).replace("virtual_host=", "db=")
    return Redis.from_url(
        address, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0)
    )


def _health(client: Redis) -> BrokerHealth:
    client.time()  # connects; a ping is refused where it cannot write to its disk
    pings, offsets = [], []
    for _ in range(_PINGS):
        asked, began = time.time(), time.monotonic()
        seconds, microseconds = client.time()
        took = time.monotonic() - began
        pings.append(took)
        offsets.append(seconds + microseconds / 1e6 - (asked + took / 2))
    info: dict[str, Any] = client.info()
    name = "Valkey" if "valkey_version" in info else "Redis"
    return BrokerHealth(
        server=f"{name} {info.get('valkey_version') or info.get('redis_version', 'of unknown version')}",
        ping_s=statistics.median(pings),
        clock_offset_s=statistics.median(offsets),
        append_only=bool(info.get("aof_enabled")),
        last_write_failed=bool(info.get("aof_enabled")) and info.get("aof_last_write_status") != "ok",
        eviction=str(info.get("maxmemory_policy", "")),
        used_memory_bytes=int(info.get("used_memory", 0)),
        max_memory_bytes=int(info.get("maxmemory", 0)),
    )
