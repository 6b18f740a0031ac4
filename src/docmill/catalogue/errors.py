"""The errors of the catalogue package."""

from __future__ import annotations

from pathlib import Path

from docmill.errors import DocmillError, WrongUse


class CatalogueError(DocmillError):
    """Base of the catalogue package's errors."""


class ModelNotFound(CatalogueError, WrongUse):
    """No model with this name or path is on this machine."""

    def __init__(self, name: str, hint: str) -> None:
        self.name = name
        super().__init__(f"there is no model {name!r} here; {hint}")


class ModelDamaged(CatalogueError):
    """A model file is truncated or not a valid model."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path} is not a usable model: {reason}; download it again")


class PullFailed(CatalogueError):
    """A model could not be downloaded."""

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"{name} could not be downloaded: {reason}")
