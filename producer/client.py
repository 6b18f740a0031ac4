"""docmill from Python.

    from docmill import submit, wait, results

    batch = submit("reports/*.pdf.txt", task="summarize")
    wait(batch)
    for document in results(batch):
        print(document.name, document.summary)

The work itself is done by a dispatcher and workers (`docmill up`, or the services of a cluster).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from docmill.producer.composition import Backend
from docmill.settings.defaults import Settings
from docmill.storage.reads.batch_status import BatchStatus
from docmill.storage.reads.documents import DocumentReport


def submit(*inputs: str, settings: Settings | None = None, **options: Any) -> str:
    """Submit documents and return the batch id. `options` are those of `Backend.prepare`."""
    backend = Backend(settings)
    return backend.submit(*backend.prepare(inputs, **options)).batch_id


def wait(batch_id: str, *, timeout_s: float | None = None, settings: Settings | None = None) -> BatchStatus:
    """Block until the batch has ended; returns its last status."""
    return Backend(settings).wait(batch_id, timeout_s=timeout_s)


def results(batch_id: str, *, settings: Settings | None = None) -> Iterator[DocumentReport]:
    """The batch's documents in input order, each with its summary (or its windows' answers)."""
    backend = Backend(settings)
    return backend.reports.documents(backend.batches.find(batch_id).id)
