"""Runs the pages' commands: docmill in this process where possible, everything else in a shell."""

from __future__ import annotations

import io
import shlex
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest

from docmill.cli.main import main

_STARTS_PROCESSES = {"run", "try", "tune", "up", "demo"}
_SILENT = " 2>/dev/null"


def run_command(command: str, environment: dict[str, str]) -> tuple[int, str]:
    """Run a command line. Returns the exit code, and standard output and error as one text."""
    call, pipe, rest = command.replace("\\\n", "").partition(" | ")
    words = shlex.split(call.removesuffix(_SILENT))
    in_process = words[0] == "docmill" and not _STARTS_PROCESSES & set(words) and ";" not in words
    if not in_process:
        return _shell(command, environment, None)
    code, out, err = _in_process(words, environment)
    err = "" if call.endswith(_SILENT) else err
    if pipe:
        code, out = _shell(rest, environment, out)
    return code, err + out


def _in_process(words: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(environment["PWD"])
        for name in ("DOCMILL_HOME", "COLUMNS"):
            patch.setenv(name, environment[name])
        patch.setattr(sys, "argv", words)
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out.getvalue(), err.getvalue()


def _shell(command: str, environment: dict[str, str], given: str | None) -> tuple[int, str]:
    done = subprocess.run(
        ["bash", "-c", command], cwd=environment["PWD"], env=environment, timeout=120, input=given or "",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", check=False,
    )  # fmt: skip
    return done.returncode, done.stdout
