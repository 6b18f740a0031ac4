"""A process in which the real exllamav2 runs on the stand-in, so that the tests' own process stays as it is."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

SITE = Path(__file__).parent / "site"

P = ParamSpec("P")
T = TypeVar("T")


class Child:
    """Runs functions of a test's module, one after the other, with this environment besides the usual one."""

    def __init__(self, **environment: str) -> None:
        self._pool = ProcessPoolExecutor(
            max_workers=1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_enter,
            initargs=(environment,),
        )

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the function returns there; raises what it raises."""
        return self._pool.submit(function, *args, **kwargs).result()

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown()


def _enter(environment: dict[str, str]) -> None:
    sys.path.insert(0, str(SITE))
    os.environ.update(environment)
