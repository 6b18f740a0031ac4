"""Shell completion, as bash calls it: through Click's environment variables, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Docmill


def complete(line: str, cwd: Path, **environment: str) -> list[str]:
    """What the shell offers at the end of `line`; anything on standard error fails the test."""
    words = line.split(" ")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "docmill"],
        env={
            **os.environ,
            "_DOCMILL_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
            **environment,
        },
        cwd=cwd, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return [entry.partition(",")[2] for entry in done.stdout.split("\n") if entry]


@pytest.mark.parametrize("command", ["status", "cancel", "report latest --against", "doctor --batch"])
def test_batch_ids_are_completed(docmill: Docmill, ready: Path, documents: Path, command: str) -> None:
    ids = [docmill("submit", f"docs/{name}", "-q").out.strip() for name in ("a.txt", "b.md")]
    assert complete(f"docmill {command} ", documents) == ["latest", *reversed(ids)]
    assert complete(f"docmill --home {ready} {command} {ids[0][:9]}", documents, DOCMILL_HOME="/nowhere") == [ids[0]]


def test_tasks_and_models_are_completed(environment: Path) -> None:
    assert complete("docmill run --task sum", environment) == ["summarize"]
    assert "smollm2-135m-instruct" in complete("docmill up --model smol", environment)
    assert complete("docmill models pull mistral-7b-i", environment) == ["mistral-7b-instruct-v0.3"]


@pytest.mark.parametrize(
    "environment_variables",
    [{}, {"DOCMILL_STORAGE__URL": "postgresql://nobody@127.0.0.1:1/none"}, {"DOCMILL_WORKER__SLOTS": "many"}],
)
def test_nothing_is_created_and_no_error_is_printed(
    environment: Path, tmp_path: Path, environment_variables: dict[str, str]
) -> None:
    assert complete("docmill cancel 26", environment, **environment_variables) == []
    assert not (tmp_path / "home").exists()
    assert list(environment.iterdir()) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_printed(environment: Path, shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "docmill"],
        env={**os.environ, "_DOCMILL_COMPLETE": f"{shell}_source"},
        cwd=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "_DOCMILL_COMPLETE" in done.stdout
