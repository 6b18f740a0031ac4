"""Anyone with access to the broker can put anything on a queue: what a running worker does with it."""

from __future__ import annotations

import base64
import json
import pickle
import uuid
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from docmill.broker.celery_app import TASK_NAME, make_app, queue_of
from docmill.worker.celery.task import register_task
from docmill.worker.run_job import Outcome, Verdict
from tests.integration.conftest import Cluster, wait_until

QUEUE = queue_of("simulated")


class Bomb:
    """Once pickled, it creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


def envelope(
    body: bytes,
    *,
    headers: dict[str, Any] | None = None,
    content_type: str = "application/json",
    encoding: str = "utf-8",
    **properties: Any,
) -> bytes:
    """A message as kombu stores it in Redis."""
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": encoding,
            "content-type": content_type,
            "headers": {"lang": "py", "task": TASK_NAME, "id": uuid.uuid4().hex, **(headers or {})},
            "properties": {
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": QUEUE},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": uuid.uuid4().hex,
                **properties,
            },
        }
    ).encode()


def call(*args: Any, headers: dict[str, Any] | None = None, **kwargs: Any) -> bytes:
    """A call of docmill's task with these arguments."""
    return envelope(json.dumps([list(args), kwargs, {}]).encode(), headers=headers)


def hostile_messages(marker: Path) -> list[bytes]:
    """Messages that are each wrong in a different way."""
    bomb = pickle.dumps(Bomb(marker))
    pickled = [[bomb.decode("latin-1")], {}, {}]
    return [
        envelope(bomb, content_type="application/x-python-serialize", encoding="binary"),
        envelope(bomb, content_type="application/x-python-serialize", encoding="utf-8"),
        envelope(json.dumps(pickled).encode(), content_type="pickle"),
        envelope(b"!!python/object/apply:os.system [exit]", content_type="application/x-yaml"),
        envelope(bomb),
        envelope(b"{"),
        envelope(b"[]"),
        envelope(b"null"),
        envelope(b"[[1], {}, {}]", encoding="no-such-encoding"),
        envelope(b"[[1], {}, {}]", headers={"compression": "application/x-gzip"}),
        envelope(b"[[1], {}, {}]", headers={"compression": "no-such-compression"}),
        call(),
        call("1"),
        call("'; DROP TABLE jobs; --"),
        call(None),
        call(True),
        call(1.0),
        call([1]),
        call({"job_id": 1}),
        call(-1),
        call(2**63),
        call(2**200),
        call(999_999_999),  # not the id of a job
        call(1, 2),
        call(1, job_id=1),
        call(other=1),
        call(1, headers={"eta": "soon", "expires": "never"}),
        call(1, headers={"timelimit": ["x", []]}),
        call(1, headers={"retries": "many"}),
        call(1, headers={"task": "os.system"}),
        call(1, headers={"task": "celery.backend_cleanup"}),
        call([{"task": TASK_NAME, "args": [1]}], headers={"task": "celery.group"}),
        call(1, headers={"task": None}),
        call(1, headers={"task": ["docmill.run_job"]}),
    ]


@pytest.mark.slow
def test_no_message_harms_the_worker_or_other_jobs(cluster: Cluster, tmp_path: Path) -> None:
    marker = tmp_path / "it went off"
    dispatcher, worker = cluster.dispatcher(), cluster.worker()
    socket = cluster.broker.url.removeprefix("redis+socket://")
    documents = cluster.documents(4, words=60)
    batch_id = cluster.submit(documents[:2])
    wait_until(lambda: cluster.count("jobs WHERE state = 'succeeded'"), f"a first job\n{cluster.last_words()}")
    with Redis(unix_socket_path=socket) as redis:
        for message in hostile_messages(marker):
            redis.lpush(QUEUE, message)
        wait_until(lambda: redis.llen(QUEUE) == 0, f"the worker to take them all\n{cluster.last_words()}")
        later = cluster.submit(documents[2:])
        for batch in (batch_id, later):
            cluster.wait_for_end(batch)
        wait_until(lambda: redis.zcard("unacked_index") == 0, f"every message to be answered\n{cluster.last_words()}")
    cluster.audit()
    assert cluster.count("jobs") == cluster.count("jobs WHERE state = 'succeeded'") > 0
    assert not marker.exists()
    assert worker.process.poll() is None
    assert dispatcher.process.poll() is None
    said = worker.log.read_text()
    assert "Celery's worker failed" not in said


@pytest.mark.slow
def test_garbage_in_the_queue_stops_a_worker_only_for_a_moment(cluster: Cluster) -> None:
    (worker,) = cluster.start()
    rubbish = [b"not json", b"\xff\xfe", b"null"]
    with Redis(unix_socket_path=cluster.broker.url.removeprefix("redis+socket://")) as redis:
        redis.lpush(QUEUE, *rubbish)
        batch_id = cluster.submit(cluster.documents(2, words=60))
        cluster.wait_for_end(batch_id)
        wait_until(lambda: redis.llen(QUEUE) == 0, f"the worker to take them all\n{cluster.last_words()}")
    cluster.audit()
    assert worker.process.poll() is None


def test_a_worker_knows_one_task() -> None:
    app = make_app("memory://")
    register_task(app, lambda _: Verdict(Outcome.DONE))
    assert set(app.tasks) == {TASK_NAME}
