from __future__ import annotations

import json
import pickle
import socket
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import Connection, Consumer, Message
from kombu.exceptions import ContentDisallowed
from redis import Redis

from docmill.broker.celery_app import TASK_NAME, make_app, queue_of, socket_url
from docmill.broker.embedded_broker import EmbeddedBroker
from docmill.broker.errors import BrokerUnavailable
from docmill.broker.publish import ping, publish, task_id_of
from tests.unit.broker.conftest import AnnouncedJob


def received(app: Celery, count: int, model: str = "m") -> list[Message]:
    """The next messages in the queue of a model, in the order in which a worker receives them."""
    found: list[Message] = []

    def take(_body: object, message: Message) -> None:
        found.append(message)
        message.ack()

    with app.connection_for_read() as connection:
        consumer = Consumer(
            connection, [app.amqp.queues[queue_of(model)]], on_message=lambda message: take(None, message),
            accept=app.conf.accept_content, prefetch_count=1,
        )  # fmt: skip
        with consumer:
            while len(found) < count:
                connection.drain_events(timeout=60)
    return found


def job_ids(messages: list[Message]) -> list[int]:
    return [message.decode()[0][0] for message in messages]


def test_a_message_carries_the_job_id_and_says_readably_what_it_is(app: Celery) -> None:
    publish(app, [AnnouncedJob(42, epoch=2)])
    (message,) = received(app, 1)
    args, kwargs, _ = message.decode()
    assert (args, kwargs) == ([42], {})
    assert message.headers["task"] == TASK_NAME
    assert message.headers["id"] == "261124-k7q2mx.42-3" == task_id_of(AnnouncedJob(42, epoch=2))
    assert message.headers["argsrepr"] == "(42,)"
    shown = message.headers["kwargsrepr"]
    assert shown == "{'batch': '261124-k7q2mx', 'document': 'naïve.txt', 'level': 1, 'index': 7}"
    assert (message.content_type, message.content_encoding) == ("application/json", "utf-8")


def test_a_message_stays_small(app: Celery, client: Redis) -> None:
    publish(app, [AnnouncedJob(1)])
    (raw,) = client.lrange("docmill.m\x06\x165", 0, -1)
    assert len(raw) < 2000
    assert json.loads(raw)["properties"]["priority"] == 5


def test_each_priority_drains_before_the_next_and_in_order_within(app: Celery) -> None:
    priorities = [9, 5, 0, 1, 5, 2, 9, 3, 4, 0]
    publish(app, [AnnouncedJob(number, priority=priority) for number, priority in enumerate(priorities)])
    expected = sorted(range(len(priorities)), key=lambda number: (priorities[number], number))
    assert job_ids(received(app, len(priorities))) == expected


def test_each_model_has_a_queue_of_its_own(app: Celery) -> None:
    publish(app, [AnnouncedJob(1, model="a"), AnnouncedJob(2, model="owner/b.gguf"), AnnouncedJob(3, model="a")])
    assert job_ids(received(app, 1, "owner/b.gguf")) == [2]
    assert job_ids(received(app, 2, "a")) == [1, 3]


def test_more_messages_than_a_round_trip_takes_all_arrive(app: Celery) -> None:
    publish(app, [AnnouncedJob(number) for number in range(1234)])
    assert job_ids(received(app, 1234)) == list(range(1234))


def test_messages_published_after_the_broker_forgot_everything_arrive(app: Celery, client: Redis) -> None:
    publish(app, [AnnouncedJob(1)])
    client.flushall()
    publish(app, [AnnouncedJob(2)])
    assert job_ids(received(app, 1)) == [2]


def test_publishing_nothing_sends_nothing(app: Celery, client: Redis) -> None:
    publish(app, [])
    assert client.keys("docmill*") == []


def test_a_pickled_message_is_refused_unread(app: Celery, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "it went off",)

    refused: list[Exception] = []
    queue = app.amqp.queues[queue_of("m")]
    with app.connection_for_write() as connection:
        publisher = connection.Producer()
        publisher.publish(
            pickle.dumps(Bomb()), exchange=queue.exchange, routing_key=queue.routing_key, declare=[queue],
            content_type="application/x-python-serialize", content_encoding="binary",
        )  # fmt: skip
        consumer = app.amqp.TaskConsumer(
            connection.default_channel, queues=[queue], on_decode_error=lambda message, error: refused.append(error)
        )
        consumer.register_callback(lambda body, message: pytest.fail("it was read"))
        with consumer:
            connection.drain_events(timeout=60)
    assert isinstance(refused[0], ContentDisallowed)
    assert not (tmp_path / "it went off").exists()


def test_a_dead_broker_is_unavailable(tmp_path: Path) -> None:
    app = make_app(socket_url(str(tmp_path / "missing.sock")))
    for act in (lambda: publish(app, [AnnouncedJob(1)]), lambda: ping(app)):
        with pytest.raises(BrokerUnavailable, match=r"missing\.sock"):
            act()


def test_a_broker_that_dies_is_unavailable_until_it_is_back(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path)
    app = make_app(broker.start())
    publish(app, [AnnouncedJob(1)])
    broker.stop()
    with pytest.raises(BrokerUnavailable):
        publish(app, [AnnouncedJob(2)])
    broker.start()
    ping(app)
    publish(app, [AnnouncedJob(3)])
    assert job_ids(received(app, 2)) == [1, 3]
    broker.stop()


def test_a_broker_that_is_back_in_the_moment_of_a_reconnection_is_unavailable_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kombu's own retry reused the channel that it had closed, and raised AttributeError."""
    broker = EmbeddedBroker(tmp_path)
    app = make_app(broker.start())
    publish(app, [AnnouncedJob(1, model="a")])
    broker.stop()
    collect = Connection.collect

    def collect_as_it_starts(self: Connection, *arguments: object) -> None:
        broker.start()
        collect(self, *arguments)

    monkeypatch.setattr(Connection, "collect", collect_as_it_starts)
    with pytest.raises(BrokerUnavailable):
        publish(app, [AnnouncedJob(2, model="b")])
    broker.stop()


def test_a_full_broker_refuses_and_keeps_what_it_has(app: Celery, client: Redis) -> None:
    publish(app, [AnnouncedJob(1)])
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    client.config_set("maxmemory", "1mb")
    with pytest.raises(BrokerUnavailable, match=r"accept messages: .*maxmemory"):
        publish(app, [AnnouncedJob(number) for number in range(2, 5000)])
    client.config_set("maxmemory", "0")
    publish(app, [AnnouncedJob(10_000)])
    assert job_ids(received(app, 1)) == [1]


def test_errors_do_not_show_the_password() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]  # no server listens there
        app = make_app(f"redis://user:hunter2@127.0.0.1:{port}/0")
        for act in (lambda: publish(app, [AnnouncedJob(1)]), lambda: ping(app)):
            with pytest.raises(BrokerUnavailable) as caught:
                act()
            assert "hunter2" not in str(caught.value)
            assert f"user:***@127.0.0.1:{port}" in str(caught.value)
            assert caught.value.url == f"redis://user:***@127.0.0.1:{port}/0"


def test_a_wrong_password_is_unavailable_in_one_line(valkey: EmbeddedBroker, client: Redis) -> None:
    client.config_set("requirepass", "right")
    try:
        with Connection(valkey.url), pytest.raises(BrokerUnavailable) as caught:
            ping(make_app(valkey.url))
        assert "\n" not in str(caught.value)
    finally:
        client.config_set("requirepass", "")
