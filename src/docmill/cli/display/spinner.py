"""A spinner while something takes seconds; one plain line where the output is no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


@contextmanager
def waiting(console: Console, what: str) -> Iterator[None]:
    """Say on `console` what goes on while the block runs; nothing of it stays on a terminal."""
    if console.is_terminal:
        with console.status(what):
            yield
        return
    console.print(what, highlight=False, markup=False, soft_wrap=True)
    yield
