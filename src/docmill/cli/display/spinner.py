"""A spinner during something that takes seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


@contextmanager
def waiting(console: Console, message: str) -> Iterator[None]:
    """Show `message` while the block runs: with a spinner on a terminal, otherwise as a line."""
    if console.is_terminal:
        with console.status(message):
            yield
        return
    console.print(message, highlight=False, markup=False, soft_wrap=True)
    yield
