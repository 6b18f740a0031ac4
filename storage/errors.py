"""What can go wrong with the stored state, each with what to do about it."""

from __future__ import annotations


class StorageError(Exception):
    """Base of the storage package's errors."""


class SchemaOutdated(StorageError):
    """The database's schema is not the one this version of docmill was written for."""

    def __init__(self, url: str, current: str | None, head: str) -> None:
        self.current, self.head = current, head
        state = "has no docmill schema yet" if current is None else f"is at schema {current}"
        super().__init__(f"the database {url} {state}, this docmill needs {head}; run `docmill db upgrade`")


class DatabaseUnavailable(StorageError):
    """The database does not answer, or cannot be written."""


class NoSuchBatch(StorageError):
    """No batch has this id."""

    def __init__(self, batch_id: str) -> None:
        self.batch_id = batch_id
        super().__init__(f"there is no batch {batch_id!r}; `docmill status` lists them")


class AmbiguousBatch(StorageError):
    """More than one batch id begins like this."""

    def __init__(self, prefix: str, matches: list[str]) -> None:
        self.prefix, self.matches = prefix, matches
        super().__init__(f"{prefix!r} could be {' or '.join(matches[:3])}; give more of the batch id")


class WrongState(StorageError):
    """The batch is in a state from which this move is not possible."""

    def __init__(self, batch_id: str, state: str, wanted: str) -> None:
        self.batch_id, self.state = batch_id, state
        super().__init__(f"batch {batch_id} is {state}: {wanted}")
