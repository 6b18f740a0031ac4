"""A Redis client for a broker URL, for everything that does not go through Celery."""

from __future__ import annotations

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry


def redis_client(broker_url: str, *, timeout_s: float, health_check_s: float = 0) -> Redis:
    """A client that fails at once if the server does not answer, instead of retrying. Raises ValueError for other URLs.

    `timeout_s` applies to connecting and to each command. A connection that was idle for `health_check_s` is tested
    before it is used; 0 tests none.
    """
    url = broker_url.replace("redis+socket://", "unix://", 1).replace("virtual_host=", "db=")
    return Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        health_check_interval=health_check_s,
        retry=Retry(NoBackoff(), 0),
    )
