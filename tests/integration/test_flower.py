"""What people see of the jobs: Celery's events, and Flower."""

from __future__ import annotations

import base64
import json
import signal
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from docmill.broker.celery_app import TASK_NAME, make_app
from tests.integration.conftest import Cluster, wait_until


def fetch(url: str, login: str = "") -> str | None:
    """The answer's text, None while nobody answers, or not to this login."""
    asked = urllib.request.Request(url)  # noqa: S310 - http to this machine
    if login:
        asked.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    try:
        with urllib.request.urlopen(asked, timeout=5) as answer:  # noqa: S310 - http to this machine
            text: str = answer.read().decode()
            return text
    except (urllib.error.URLError, OSError):
        return None


@contextmanager
def listening(url: str) -> Iterator[list[dict[str, Any]]]:
    """All events of the broker's workers, as they come."""
    seen: list[dict[str, Any]] = []
    app = make_app(url)
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": seen.append})
        thread = threading.Thread(target=receiver.capture, kwargs={"limit": None, "timeout": None, "wakeup": True})
        thread.start()
        try:
            yield seen
        finally:
            receiver.should_stop = True
            thread.join()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_events_show_each_job_as_a_task_with_readable_id_and_arguments(cluster: Cluster) -> None:
    cluster.start()
    with listening(cluster.broker.url) as seen:

        def heard(**wanted: str) -> dict[str, Any] | None:
            return next((event for event in list(seen) if wanted.items() <= event.items()), None)

        wait_until(lambda: heard(type="worker-heartbeat"), "the worker to be heard")
        batch_id = cluster.submit(cluster.documents(1))
        done = wait_until(lambda: heard(type="task-succeeded", result="'done'"), "a job to have succeeded")
        task = heard(type="task-received", uuid=done["uuid"])
        started = heard(type="task-started", uuid=done["uuid"])
    assert task is not None
    assert started is not None
    assert task["name"] == TASK_NAME
    assert task["uuid"].startswith(f"{batch_id}.")
    assert f"'batch': '{batch_id}'" in task["kwargs"]
    assert all(f"'{name}'" in task["kwargs"] for name in ("document", "level", "index"))
    assert done["runtime"] > 0
    cluster.wait_for_end(batch_id)


def test_flower_names_the_jobs_asks_for_a_password_and_keeps_them_over_a_restart(cluster: Cluster) -> None:
    cluster.environment["DOCMILL_FLOWER_BASIC_AUTH"] = "me:secret"
    port = free_port()

    def tasks() -> list[dict[str, Any]]:
        """As the page asks for them."""
        column = "order%5B0%5D%5Bcolumn%5D=0&order%5B0%5D%5Bdir%5D=asc&columns%5B0%5D%5Bdata%5D=received"
        page = fetch(f"http://127.0.0.1:{port}/tasks/datatable?draw=1&start=0&length=100&{column}", "me:secret")
        shown: list[dict[str, Any]] = json.loads(page)["data"] if page else []
        return shown

    def ended() -> list[dict[str, Any]]:
        return [task for task in tasks() if task["state"] == "SUCCESS"]

    first = cluster.run("flower", "--port", str(port), "--persistent")
    wait_until(lambda: fetch(f"http://127.0.0.1:{port}/", "me:secret"), "Flower to answer")
    for path in ("tasks", "api/tasks"):
        assert fetch(f"http://127.0.0.1:{port}/{path}") is None, "it answers nobody without the password"
    cluster.start()
    batch_id = cluster.submit(cluster.documents(2, words=20))
    cluster.wait_for_end(batch_id)
    before = wait_until(lambda: ended() if len(ended()) == 2 else None, "both jobs in Flower")
    (worker,) = [name for (name,) in cluster.rows("SELECT name FROM workers")]
    host, _, device = worker.rpartition("/")
    for number, task in enumerate(sorted(before, key=lambda task: str(task["name"]))):
        assert task["name"].endswith(f"000{number}.txt, part 1")
        assert task["kwargs"] == f"batch {batch_id}"
        assert task["uuid"].startswith(f"{batch_id}.")
        assert task["worker"] == f"{device}@{host}"
        assert (task["retries"], task["runtime"] > 0) == (0, True)
    metrics = fetch(f"http://127.0.0.1:{port}/metrics", "me:secret") or ""
    assert 'flower_events_total{task="docmill.run_job",type="task-succeeded"' in metrics
    first.signal(signal.SIGTERM)
    first.wait()
    cluster.run("flower", "--port", str(port), "--persistent")
    after = wait_until(ended, "Flower to answer again with its history")
    assert sorted(task["uuid"] for task in after) == sorted(task["uuid"] for task in before)


def test_up_with_flower_answers_on_loopback_alone(cluster: Cluster) -> None:
    if any(c.laddr.port == 5555 for c in psutil.net_connections("tcp") if c.laddr and c.status == psutil.CONN_LISTEN):
        pytest.skip("port 5555 is taken on this machine")
    cluster.broker.stop()  # `up` runs its own
    up = cluster.run("up", "--flower", "--engine", "simulated", "--slots", "4")
    wait_until(lambda: fetch("http://127.0.0.1:5555/"), f"Flower to answer\n{up.log.read_text()}")
    listening = {
        connection.laddr.ip
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == 5555
    }
    assert listening == {"127.0.0.1"}
    cluster.wait_for_end(cluster.submit(cluster.documents(1, words=20)))
    cluster.audit()
    family = psutil.Process(up.pid).children(recursive=True)
    up.signal(signal.SIGINT)
    assert up.wait() == 0
    assert psutil.wait_procs(family, timeout=30)[1] == [], "everything it started has ended"
