"""The health of a real Valkey."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

from docmill.broker.broker_health import read_broker
from docmill.broker.embedded_broker import EmbeddedBroker
from docmill.broker.errors import BrokerUnavailable
from docmill.broker.redis_client import redis_client


def test_the_embedded_broker_keeps_what_it_is_given(valkey: EmbeddedBroker) -> None:
    health = read_broker(valkey.url)
    assert health.server.startswith("Valkey ")
    assert (health.append_only, health.last_write_failed, health.eviction) == (True, False, "noeviction")
    assert 0 < health.ping_s < 5
    assert abs(health.clock_offset_s) < 5
    assert (health.max_memory_bytes, health.used_memory_bytes > 0) == (0, True)


def test_its_memory_and_persistence_are_those_of_the_moment(valkey: EmbeddedBroker, client: Redis) -> None:
    changed = {"maxmemory": "64mb", "maxmemory-policy": "allkeys-lru", "appendonly": "no"}
    for name, value in changed.items():
        client.config_set(name, value)
    try:
        health = read_broker(valkey.url)
    finally:
        for name, value in {"maxmemory": "0", "maxmemory-policy": "noeviction", "appendonly": "yes"}.items():
            client.config_set(name, value)
        while client.info("persistence")["aof_rewrite_in_progress"]:  # the server does not stop before that is written
            assert client.ping()
    assert (health.append_only, health.eviction, health.max_memory_bytes) == (False, "allkeys-lru", 64 << 20)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "redis+socket:///no/such.sock", "amqp://host"])
def test_one_that_cannot_be_asked_is_unavailable_with_its_url(url: str) -> None:
    with pytest.raises(BrokerUnavailable, match="does not accept messages") as raised:
        read_broker(url)
    assert url in str(raised.value)


def test_a_password_is_not_shown() -> None:
    with pytest.raises(BrokerUnavailable) as raised:
        read_broker("redis://:secret@127.0.0.1:1/0")
    assert "secret" not in str(raised.value)


def test_the_database_number_of_a_socket_url_is_kept(tmp_path: Path) -> None:
    client = redis_client(f"redis+socket://{tmp_path}/v.sock?virtual_host=3", timeout_s=1.0)
    settings = client.connection_pool.connection_kwargs
    assert (settings["path"], settings["db"]) == (f"{tmp_path}/v.sock", 3)
