"""Fingerprints that identify a model's weights; those of large files are computed from parts of the file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from docmill.catalogue.local_model import Model, ModelKind

_HEAD = 16 << 20  # bytes; enough for the header of a GGUF with its vocabulary
_TAIL = 1 << 20


def sha256_of(path: Path) -> str:
    """The SHA-256 of a whole file, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def quick_fingerprint(path: Path) -> str:
    """32 hex digits from a file's size, its first 16 and its last megabyte."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_HEAD))
        file.seek(max(0, size - _TAIL))
        digest.update(file.read())
    return digest.hexdigest()[:32]


def directory_fingerprint(directory: Path) -> str:
    """24 hex digits from a model directory's config.json and parts of its weights."""
    digest = hashlib.sha256((directory / "config.json").read_bytes())
    for file in sorted(directory.glob("*.safetensors")):
        digest.update(quick_fingerprint(file).encode())
    return digest.hexdigest()[:24]


def model_fingerprint(model: Model) -> str:
    """A text that identifies the model's weights."""
    if model.kind is ModelKind.DIRECTORY:
        return directory_fingerprint(model.path)
    return f"{model.kind}-{model.sha256 or quick_fingerprint(model.path)}"
