"""The commands as they are typed: through `main`, which turns errors into sentences and exit codes."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from docmill.cli.main import main
from docmill.producer.model_text import ModelText
from docmill.storage.database import Database
from docmill.storage.schema import upgrade


@dataclass(frozen=True)
class Outcome:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Docmill = Callable[..., Outcome]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to work in, and no setting from outside."""
    for name in list(os.environ):
        if name.startswith("DOCMILL_"):
            monkeypatch.delenv(name)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("DOCMILL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # as `main` sets it, but only for this test
    return work


@pytest.fixture
def docmill(environment: Path, monkeypatch: pytest.MonkeyPatch) -> Docmill:
    """Call `docmill` with these arguments."""

    def call(*arguments: str | Path, stdin: str = "") -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "argv", ["docmill", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return Outcome(ended.value.code, out.getvalue(), err.getvalue())

    return call


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database at this version's schema."""
    path = tmp_path_factory.mktemp("migrated") / "docmill.db"
    database = Database(f"sqlite:///{path}")
    upgrade(database)
    database.close()
    return path


@pytest.fixture
def with_model(environment: Path, model_text: ModelText, own_home: Path) -> Path:
    """The home of the commands, with the demo model in it."""
    return own_home


@pytest.fixture
def ready(with_model: Path, migrated: Path) -> Path:
    """The home of the commands, with the demo model and an empty database in it."""
    shutil.copy(migrated, with_model / "docmill.db")
    return with_model


@pytest.fixture
def documents(environment: Path) -> Path:
    """A directory of two documents that can be read, one that cannot, and one that is empty."""
    directory = environment / "docs"
    directory.mkdir()
    (directory / "a.txt").write_text("Understanding is the aim.\n\nThe second paragraph is here.\n")
    (directory / "b.md").write_text("# Title\n\nSome text in Markdown.\n")
    (directory / "c.txt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(128, 256)) + bytes(100))
    (directory / "d.txt").write_text("")
    return directory
