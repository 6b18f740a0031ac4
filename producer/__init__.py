"""Documents in, jobs out, merges planned, results back. Never imports an engine.

`submit`, `wait` and `results` are docmill's Python API; see `producer.client`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producer.client import results, submit, wait

__all__ = ["results", "submit", "wait"]


def __getattr__(name: str) -> Any:
    """Import the API on first use: `import producer.chunking` should not import Celery."""
    if name in __all__:
        from producer import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
