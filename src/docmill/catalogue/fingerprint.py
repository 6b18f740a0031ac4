"""Tell model files apart without reading all of a large one."""

from __future__ import annotations

import hashlib
from pathlib import Path

from docmill.catalogue.local_model import Model, ModelKind

_HEAD = 16 << 20  # bytes; a GGUF's header, vocabulary included, lies in them
_TAIL = 1 << 20


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
    """Tells model directories apart without reading all of them: config.json and every weights file's ends."""
    digest = hashlib.sha256((directory / "config.json").read_bytes())
    for file in sorted(directory.glob("*.safetensors")):
        digest.update(quick_fingerprint(file).encode())
    return digest.hexdigest()[:24]


def model_fingerprint(model: Model) -> str:
    """What tells the model's weights from all others."""
    if model.kind is ModelKind.DIRECTORY:
        return directory_fingerprint(model.path)
    return f"{model.kind}-{model.sha256 or quick_fingerprint(model.path)}"
