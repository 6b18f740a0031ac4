from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from docmill.broker.embedded_broker import EmbeddedBroker
from docmill.storage.database import Database
from docmill.storage.moves.attempts import WorkerIdentity
from docmill.storage.moves.workers import WorkerRow
from tests.unit.broker.conftest import kill
from tests.unit.cli.conftest import Docmill


@pytest.fixture
def migrated_home(environment: Path, migrated: Path, tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    shutil.copy(migrated, home / "docmill.db")
    return home


def test_health_is_good_when_broker_and_database_answer_and_a_worker_of_this_host_was_seen(
    docmill: Docmill, migrated_home: Path
) -> None:
    database = Database(f"sqlite:///{migrated_home / 'docmill.db'}")
    elsewhere = WorkerRow(database, WorkerIdentity("elsewhere/cpu-1", "simulated", "m"))
    here = WorkerRow(database, WorkerIdentity(f"{socket.gethostname()}/cpu-1", "simulated", "m"))
    elsewhere.register(slots=1)
    with EmbeddedBroker(migrated_home / "broker"):
        assert docmill("health").out == "ok: broker, database\n"
        refused = docmill("health", "--worker")
        assert (refused.code, refused.out) == (1, "")
        assert f"no worker of {socket.gethostname()} was seen" in refused.err
        here.register(slots=1)
        assert docmill("health", "--worker").out == f"ok: broker, database, {socket.gethostname()}/cpu-1\n"
        here.stopped()
        assert docmill("health", "--worker").code == 1
        (migrated_home / "docmill.db").unlink()
        assert docmill("health").code == 1
    database.close()


def test_health_is_bad_without_a_broker_that_answers(
    docmill: Docmill, migrated_home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert docmill("health").code == 1
    broker = EmbeddedBroker(migrated_home / "broker")
    broker.start()
    kill(broker)
    assert docmill("health").code == 1
    assert "waiting" not in caplog.text, "it looks once"
    monkeypatch.setenv("DOCMILL_BROKER__URL", "redis://:hunter2@127.0.0.1:1/0")
    refused = docmill("health")
    assert (refused.code, refused.out) == (1, "")
    assert "hunter2" not in refused.err
