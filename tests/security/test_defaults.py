"""Safe defaults: Flower, the database, and what is printed."""

from __future__ import annotations

import base64
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from docmill.broker.embedded_broker import EmbeddedBroker
from docmill.cli.commands.flower import _is_login, _is_loopback
from tests.integration.conftest import wait_until
from tests.integration.test_flower import fetch, free_port
from tests.unit.cli.conftest import Docmill, docmill, documents, environment, migrated, ready, with_model

__all__ = ["docmill", "documents", "environment", "migrated", "ready", "with_model"]

ROOT = Path(__file__).parents[2]


def status(url: str, login: str | None = None) -> int:
    """The status code of the response."""
    request = urllib.request.Request(url)  # noqa: S310 - http to this machine
    if login is not None:
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_flower_beyond_loopback_requires_the_password_and_ignores_files_in_the_current_directory(
    tmp_path: Path,
) -> None:
    trap, port = tmp_path / "trap", free_port()
    (tmp_path / "flowerconfig.py").write_text(f"open({str(trap)!r}, 'w').close()\nbasic_auth = None\n")
    with EmbeddedBroker(tmp_path / "broker") as broker, (tmp_path / "log").open("wb") as log:
        flower = subprocess.Popen(
            [sys.executable, "-m", "docmill", "flower", "--address", "0.0.0.0", "--port", str(port)],  # noqa: S104
            cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT,
            env={"PYTHONPATH": str(ROOT), "DOCMILL_HOME": str(tmp_path), "DOCMILL_BROKER__URL": broker.url,
                 "DOCMILL_FLOWER_BASIC_AUTH": "me:hunter2", "DOCMILL_LOG_LEVEL": "DEBUG"},
        )  # fmt: skip
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until(lambda: fetch(f"{url}/healthcheck"), "Flower to answer")
            for page in ("/", "/api/workers", "/tasks", "/broker"):
                assert status(url + page) == 401
                assert status(url + page, "me:wrong") == 401
            assert status(f"{url}/", "me:hunter2") == 200
            assert "hunter2" not in " ".join(psutil.Process(flower.pid).cmdline())
        finally:
            flower.terminate()
            flower.wait(30)
    assert not trap.exists()
    assert "hunter2" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("address", "loopback"),
    [("127.0.0.1", True), ("127.0.0.2", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),  # noqa: S104
     ("", False), ("10.0.0.1", False), ("127.0.0.1.example.com", False)],
)  # fmt: skip
def test_flower_knows_what_is_loopback(address: str, *, loopback: bool) -> None:
    assert _is_loopback(address) is loopback


@pytest.mark.parametrize(
    ("login", "right"),
    [("me:secret", True), ("me:se:cret", True), ("me:", False), (":secret", False), ("me", False), (":", False),
     ("me:se,cret", False)],  # Flower would take "cret" for a login
)  # fmt: skip
def test_a_login_that_flower_would_take_for_another_is_refused(login: str, *, right: bool) -> None:
    assert _is_login(login) is right


HOSTILE = 'x\'; DROP TABLE jobs; -- [/bold] %s {0} \\ "quoted"'


def test_no_text_becomes_sql_or_markup(docmill: Docmill, ready: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work" / "docs"
    document = folder / f"{HOSTILE}.txt"  # the slash in it makes a directory
    document.parent.mkdir(parents=True)
    document.write_text("Understanding is the aim.")
    for arguments in (
        ["chunks", str(folder)],
        ["submit", str(folder), "--metadata", f"owner={HOSTILE}", "--idempotency-key", HOSTILE],
        ["status"],
        ["results", "latest"],
    ):
        done = docmill(*arguments)
        assert done.code == 0, done.err
    for command in ("status", "results", "cancel", "retry", "pause"):
        refused = docmill(command, "' OR '1'='1")
        assert (refused.code, "there is no batch" in refused.err) == (2, True)
    assert docmill("status", "--json").json


def test_sql_made_of_strings_fails_the_lint() -> None:
    """Ruff rule S608 applies to all product code; exceptions are marked on their line."""
    snippet = "def f(session, name):\n    return session.execute(f\"SELECT * FROM jobs WHERE owner = '{name}'\")\n"
    for package in ("cli", "storage", "worker", "producer", "broker", "insight"):
        linted = subprocess.run(
            [sys.executable, "-m", "ruff", "check", "--no-cache", "--stdin-filename", f"docmill/{package}/x.py", "-"],
            input=snippet, capture_output=True, text=True, cwd=ROOT, check=False,
        )  # fmt: skip
        assert "S608" in linted.stdout, package
