"""What can go wrong with the stored state, each with what to do about it."""

from __future__ import annotations

from collections.abc import Sequence

from docmill.errors import DocmillError, WrongUse


class StorageError(DocmillError):
    """Base of the storage package's errors."""


class SchemaOutdated(StorageError):
    """The database's schema is not the one this version of docmill was written for."""

    def __init__(self, url: str, current: str | None, head: str) -> None:
        self.current, self.head = current, head
        state = "has no docmill schema yet" if current is None else f"is at schema {current}"
        super().__init__(f"the database {url} {state}, this docmill needs {head}; run `docmill db upgrade`")


class DatabaseUnavailable(StorageError):
    """The database does not answer, or cannot be written."""


class OtherHost(StorageError):
    """A SQLite database belongs to another host."""

    def __init__(self, url: str, owner: str, here: str) -> None:
        self.owner = owner
        super().__init__(
            f"the database {url} belongs to the host {owner}, this is {here}: SQLite cannot be shared by hosts. Set "
            "storage.url to a Postgres on all of them; or, if the file was moved here for good, `docmill db adopt`"
        )


class NoSuchBatch(StorageError, WrongUse):
    """No batch has this id."""

    def __init__(self, batch_id: str) -> None:
        self.batch_id = batch_id
        super().__init__(f"there is no batch {batch_id!r}; `docmill status` lists them")


class NoSuchJob(StorageError, WrongUse):
    """No job has this id."""

    def __init__(self, job_id: int) -> None:
        self.job_id = job_id
        super().__init__(f"there is no job {job_id}")


class NoSuchDocument(StorageError, WrongUse):
    """The batch has no document of this name."""

    def __init__(self, batch_id: str, name: str) -> None:
        self.batch_id, self.name = batch_id, name
        super().__init__(f"batch {batch_id} has no document {name!r}; `docmill results {batch_id}` lists them")


class QueryRefused(StorageError, WrongUse):
    """A user's SQL is not one statement that reads, or the database does not understand it."""


class NoSuchWorker(StorageError, WrongUse):
    """No worker at work has this name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        self.name = name
        there = f"there are {', '.join(known)}" if known else "none is at work"
        super().__init__(f"there is no worker {name!r}; {there}")


class AmbiguousBatch(StorageError, WrongUse):
    """More than one batch id begins like this."""

    def __init__(self, prefix: str, matches: list[str]) -> None:
        self.prefix, self.matches = prefix, matches
        super().__init__(f"{prefix!r} could be {' or '.join(matches[:3])}; give more of the batch id")


class IdempotencyKeyTaken(StorageError):
    """A batch with this idempotency key was submitted just now."""

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"a batch with the idempotency key {key!r} is being submitted already")


class WrongState(StorageError):
    """The batch is in a state from which this move is not possible."""

    def __init__(self, batch_id: str, state: str, wanted: str) -> None:
        self.batch_id, self.state = batch_id, state
        super().__init__(f"batch {batch_id} is {state}: {wanted}")
