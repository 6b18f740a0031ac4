"""A user's command in a process of its own, forked from one that has docmill imported: that saves a second each."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "docmill.cli.main",
        "docmill.cli.commands.submit",
        "docmill.cli.commands.cancel",
        "docmill.cli.commands.pause",
        "psycopg",
    ]
)


def start(arguments: Sequence[str], environment: Mapping[str, str], out: Path, errors: Path) -> BaseProcess:
    """`docmill ARGUMENTS`; what it prints is written to `out`, and added to `errors`."""
    process = _FORKS.Process(target=_call, args=(list(arguments), dict(environment), str(out), str(errors)))
    process.start()
    return process


def _call(arguments: list[str], environment: dict[str, str], out: str, errors: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    flags = os.O_WRONLY | os.O_CREAT
    os.dup2(os.open(out, flags | os.O_TRUNC), sys.stdout.fileno())
    os.dup2(os.open(errors, flags | os.O_APPEND), sys.stderr.fileno())
    sys.argv = ["docmill", *arguments]
    from docmill.cli.main import main

    main()
