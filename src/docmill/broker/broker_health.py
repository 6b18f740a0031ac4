"""The state of the broker: whether it answers, how fast, how it persists data. Asked directly, without Celery."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from docmill.broker.errors import BrokerUnavailable
from docmill.broker.redis_client import redis_client
from docmill.settings.masking import mask

_TIMEOUT_S = 5.0
_PINGS = 11


@dataclass(frozen=True, slots=True)
class BrokerHealth:
    """`clock_offset_s` is the broker's clock minus ours, accurate to half of `ping_s`.

    `max_memory_bytes` 0 means no limit. `append_only`: every message is written to disk within a second or so.
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
    """Ask the broker at this URL. Raises BrokerUnavailable."""
    try:
        with redis_client(url, timeout_s=_TIMEOUT_S) as client:
            return _health(client)
    except (RedisError, OSError, ValueError) as error:
        lines = str(error).splitlines()
        raise BrokerUnavailable(mask(url), mask(lines[0]) if lines else type(error).__name__) from error


def _health(client: Redis) -> BrokerHealth:
    client.time()  # connects; unlike PING, it works if the server cannot write to its disk
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
