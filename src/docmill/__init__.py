"""Bulk work by local language models over piles of long documents.

`submit`, `wait` and `results` are docmill's Python API; see `docmill.producer.client`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from docmill.producer.client import results, submit, wait

__all__ = ["results", "submit", "wait"]


def __getattr__(name: str) -> Any:
    """Import the API on first use: `import docmill.worker.batcher` should not import SQLAlchemy and Celery."""
    if name in __all__:
        from docmill.producer import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
