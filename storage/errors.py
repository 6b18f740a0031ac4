"""Errors of the storage package. Each message says what is wrong and, where possible, what to do."""

from __future__ import annotations

from collections.abc import Sequence

from docmill.errors import DocmillError, WrongUse


class StorageError(DocmillError):
    """Base class of the storage package's errors."""


class SchemaOutdated(StorageError):
    """The database's schema is not the one that this version of docmill needs."""

    def __init__(self, url: str, current: str | None, head: str) -> None:
        state = "has no docmill schema yet" if current is None else f"is at schema {current}"
        super().__init__(f"the database {url} {state}, this docmill needs {head}; run `docmill db upgrade`")


class DatabaseUnavailable(StorageError):
    """The database does not respond or cannot be written."""


class OtherHost(StorageError):
    """A SQLite database belongs to another host."""

    def __init__(self, url: str, owner: str, here: str) -> None:
        super().__init__(
            f"the database {url} belongs to the host {owner}, and this is {here}: hosts cannot share SQLite. Set "
            "storage.url to a Postgres database on all of them. If the file was moved here, run `docmill db adopt`"
        )


class NoSuchBatch(StorageError, WrongUse):
    """No batch has this id or prefix."""

    def __init__(self, batch_id: str) -> None:
        self.batch_id = batch_id
        super().__init__(f"there is no batch {batch_id!r}; `docmill status` lists them")


class NoSuchJob(StorageError, WrongUse):
    """No job has this id."""

    def __init__(self, job_id: int) -> None:
        self.job_id = job_id
        super().__init__(f"there is no job {job_id}")


class NoSuchDocument(StorageError, WrongUse):
    """The batch has no document with this name."""

    def __init__(self, batch_id: str, name: str) -> None:
        self.batch_id, self.name = batch_id, name
        super().__init__(f"batch {batch_id} has no document {name!r}; `docmill results {batch_id}` lists them")


class QueryRefused(StorageError, WrongUse):
    """A user's SQL is not a single read-only statement, or the database rejected it."""


class NoSuchWorker(StorageError, WrongUse):
    """No active worker has this name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        self.name = name
        active = f"active workers: {', '.join(known)}" if known else "no worker is active"
        super().__init__(f"there is no worker {name!r}; {active}")


class AmbiguousBatch(StorageError, WrongUse):
    """More than one batch id starts with this prefix."""

    def __init__(self, prefix: str, matches: list[str]) -> None:
        self.prefix, self.matches = prefix, matches
        super().__init__(f"{prefix!r} could be {' or '.join(matches[:3])}; give more of the batch id")


class IdempotencyKeyTaken(StorageError):
    """Another process is submitting a batch with this idempotency key."""

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"a batch with the idempotency key {key!r} is already being submitted")


class WrongState(StorageError):
    """The batch is in a state that does not allow this change."""

    def __init__(self, batch_id: str, state: str, wanted: str) -> None:
        self.batch_id, self.state = batch_id, state
        super().__init__(f"batch {batch_id} is {state}: {wanted}")
