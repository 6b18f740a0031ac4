from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from redis.exceptions import ResponseError

from docmill.broker.broker_health import read_broker
from docmill.broker.celery_app import make_app
from docmill.broker.embedded_broker import EmbeddedBroker, is_answering, running_url, wait_for_url
from docmill.broker.errors import BrokerFull, EmbeddedBrokerFailed
from docmill.broker.publish import ping
from tests.small_disk import small_disk
from tests.unit.broker.conftest import client_of, kill

STARTS_ONE = """
import sys, time
from pathlib import Path
from docmill.broker.embedded_broker import EmbeddedBroker
broker = EmbeddedBroker(Path(sys.argv[1]))
broker.start()
print(broker._process.pid, flush=True)
time.sleep(600)
"""


def in_another_process(directory: Path) -> tuple[subprocess.Popen[str], psutil.Process]:
    """A program that runs a broker, and the server that it started."""
    program = subprocess.Popen([sys.executable, "-c", STARTS_ONE, str(directory)], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    return program, psutil.Process(int(program.stdout.readline()))


def test_it_answers_when_started_and_not_when_stopped(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path)
    assert running_url(tmp_path) is None
    assert not broker.is_alive()
    with broker:
        assert broker.is_alive()
        assert running_url(tmp_path) == broker.url
        assert client_of(broker.url).ping()
    assert running_url(tmp_path) is None
    assert not broker.is_alive()
    broker.stop()


def test_one_whose_disk_is_full_runs_and_takes_nothing_until_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "broker") as disk, EmbeddedBroker(disk.path) as broker, client_of(broker.url) as client:
        disk.fill()
        while not read_broker(broker.url).last_write_failed:
            with suppress(ResponseError):
                client.set("key", "value")
        assert running_url(disk.path) == broker.url
        with pytest.raises(BrokerFull, match="No space left on device"):
            ping(make_app(broker.url))
        disk.empty()
        while read_broker(broker.url).last_write_failed:  # it tries again each second
            assert broker.is_alive()
        ping(make_app(broker.url))


def test_only_its_user_can_reach_it(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        socket = Path(broker.url.removeprefix("redis+socket://"))
        assert stat.S_IMODE(socket.stat().st_mode) & 0o077 == 0
        assert client_of(broker.url).config_get("port") == {"port": "0"}, "it listens nowhere else"


def test_what_it_holds_survives_kill_9_and_a_restart(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path)
    with client_of(broker.start()) as client:
        client.rpush("queue", *range(1000))
        client.execute_command("WAITAOF", 1, 0, 5000)  # appendfsync everysec: what a second has not passed may be lost
    kill(broker)
    assert not broker.is_alive()
    with client_of(broker.start()) as client:
        assert client.llen("queue") == 1000
    broker.stop()


def test_what_it_holds_survives_a_stop_in_order(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker, client_of(broker.url) as client:
        client.set("key", "value")
    with EmbeddedBroker(tmp_path) as broker, client_of(broker.url) as client:
        assert client.get("key") == b"value"


def test_it_ends_with_its_parent_however_the_parent_ends(tmp_path: Path) -> None:
    program, server = in_another_process(tmp_path)
    with client_of(str(running_url(tmp_path))) as client:
        client.set("key", "value")
    program.kill()
    program.wait()
    assert psutil.wait_procs([server], timeout=60)[0] == [server]
    with EmbeddedBroker(tmp_path) as broker, client_of(broker.url) as client:
        assert client.get("key") == b"value", "SIGKILL of its parent is a stop in order for it"


def test_a_left_over_server_is_replaced_and_its_data_kept(tmp_path: Path) -> None:
    program, server = in_another_process(tmp_path)
    try:
        with client_of(str(running_url(tmp_path))) as client:
            client.set("key", "value")
        with EmbeddedBroker(tmp_path) as broker, client_of(broker.url) as client:
            assert client.get("key") == b"value"
            assert server.status() == psutil.STATUS_ZOMBIE, "the append-only file has one writer"
    finally:
        program.kill()
        program.wait()


def test_a_socket_left_by_a_dead_server_does_not_matter(tmp_path: Path) -> None:
    program, server = in_another_process(tmp_path)
    server.send_signal(signal.SIGKILL)
    program.kill()
    program.wait()
    assert list(tmp_path.glob("*.sock")) != []
    assert running_url(tmp_path) is None
    with EmbeddedBroker(tmp_path) as broker:
        assert broker.is_alive()


def test_a_broker_that_was_stopped_or_never_started_is_not_waited_for(tmp_path: Path) -> None:
    forever_s = 1e6
    assert wait_for_url(tmp_path / "nowhere", forever_s) is None
    with EmbeddedBroker(tmp_path) as broker:
        assert wait_for_url(tmp_path, forever_s) == broker.url
    assert wait_for_url(tmp_path, forever_s) is None


def test_waiting_for_a_killed_broker_ends_after_the_timeout(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path)
    broker.start()
    kill(broker)
    assert wait_for_url(tmp_path, 0.1) is None


def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90) / ("é" * 60)
    deep.mkdir(parents=True)
    with EmbeddedBroker(deep) as broker:
        socket = broker.url.removeprefix("redis+socket://")
        assert len(os.fsencode(socket)) < 100
        assert running_url(deep) == broker.url
        assert stat.S_IMODE(Path(socket).parent.stat().st_mode) == 0o700
        other = EmbeddedBroker(deep.with_name("ü" * 60))
        assert other.url != broker.url
    assert list(deep.glob("appendonlydir/*")) != [], "its data stays where it belongs"


def test_a_server_that_cannot_start_says_where_to_look(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").write_text("in the way")
    with pytest.raises(EmbeddedBrokerFailed, match=r"valkey\.log.*broker\.url"):
        EmbeddedBroker(tmp_path).start()


def test_nothing_answers_on_a_file_that_is_not_a_socket(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not is_answering(tmp_path / "file")
    assert not is_answering(tmp_path / "missing")
