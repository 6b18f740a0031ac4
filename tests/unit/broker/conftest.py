"""A real Valkey for each module, and a client to inspect it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from celery import Celery
from redis import Redis

from docmill.broker.celery_app import make_app
from docmill.broker.embedded_broker import EmbeddedBroker


@dataclass(frozen=True)
class AnnouncedJob:
    """The data of a message."""

    id: int
    epoch: int = 0
    model: str = "m"
    priority: int = 5
    batch_id: str = "261124-k7q2mx"
    document: str = "naïve.txt"
    level: int = 1
    position: int = 7


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(tmp_path_factory.mktemp("v")) as broker:
        yield broker


@pytest.fixture
def client(valkey: EmbeddedBroker) -> Iterator[Redis]:
    """A client of the server, which is emptied before and after the test."""
    with client_of(valkey.url) as client:
        client.flushall()
        yield client
        client.config_set("maxmemory", "0")
        client.flushall()


@pytest.fixture
def app(valkey: EmbeddedBroker, client: Redis) -> Iterator[Celery]:
    app = make_app(valkey.url)
    yield app
    app.close()


def kill(broker: EmbeddedBroker) -> None:
    """Kill the server with SIGKILL; `broker.start()` starts it again."""
    assert broker._process is not None
    broker._process.kill()
    broker._process.wait()


def client_of(url: str) -> Redis:
    """A plain client of the server behind a broker URL on a unix socket."""
    return Redis(unix_socket_path=str(Path(url.removeprefix("redis+socket://"))))
