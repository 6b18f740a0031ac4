"""Batch processing of documents by local language models.

    from docmill import submit, wait, results

    batch = submit("reports/*.txt", task="summarize")
    wait(batch)
    for document in results(batch):
        print(document.name, document.summary)

`submit`, `wait`, `as_completed`, `results`, `status`, `cancel` and `retry` share one `Client`, made with the settings
of the environment and of `config.yaml` on first use; make a `Client` to choose other settings. See docs/python.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from docmill.broker.errors import BrokerFull
    from docmill.catalogue.errors import ModelNotFound
    from docmill.errors import DocmillError, WrongUse
    from docmill.producer.client import Client, as_completed, cancel, results, retry, status, submit, wait
    from docmill.producer.errors import IdempotencyKeyReused, InputNotFound, NothingToDo, ProducerError, RecordInvalid
    from docmill.producer.intake.records import Record
    from docmill.producer.submission import SubmittedBatch
    from docmill.settings.defaults import Settings
    from docmill.settings.errors import SettingsError
    from docmill.settings.load import load_settings
    from docmill.storage.errors import DatabaseUnavailable, NoSuchBatch, StorageError
    from docmill.storage.reads.batch_status import BatchStatus
    from docmill.storage.reads.documents import DocumentReport
    from docmill.storage.states import BatchState, DocumentState

__all__ = [
    "BatchState", "BatchStatus", "BrokerFull", "Client", "DatabaseUnavailable", "DocmillError", "DocumentReport",
    "DocumentState", "IdempotencyKeyReused", "InputNotFound", "ModelNotFound", "NoSuchBatch", "NothingToDo",
    "ProducerError", "Record", "RecordInvalid", "Settings", "SettingsError", "StorageError", "SubmittedBatch",
    "WrongUse", "as_completed", "cancel", "load_settings", "results", "retry", "status", "submit", "wait",
]  # fmt: skip

# Searched in this order: modules that import little come first, so that an error's class does not import SQLAlchemy.
_MODULES = (
    "errors", "settings.errors", "broker.errors", "catalogue.errors", "storage.errors", "storage.states",
    "producer.errors", "producer.intake.records", "settings.defaults", "settings.load", "storage.reads.batch_status",
    "storage.reads.documents", "producer.submission", "producer.client",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import the API when it is first used: `import docmill` alone imports neither SQLAlchemy nor Celery."""
    if name in __all__:
        for module in _MODULES:
            if hasattr(found := import_module(f"docmill.{module}"), name):
                return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
