"""What can go wrong with a model's files, each with what to do about it."""

from __future__ import annotations

from pathlib import Path

from docmill.errors import DocmillError, WrongUse


class CatalogueError(DocmillError):
    """Base of the catalogue package's errors."""


class ModelNotFound(CatalogueError, WrongUse):
    """No model of this name or path is here."""

    def __init__(self, name: str, hint: str) -> None:
        self.name = name
        super().__init__(f"there is no model {name!r} here; {hint}")


class ModelDamaged(CatalogueError):
    """A model file is truncated, or not what it claims to be."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path} is not a usable model: {reason}; fetch it again")


class PullFailed(CatalogueError):
    """A model could not be fetched."""

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"{name} could not be fetched: {reason}")
