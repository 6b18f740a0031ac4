"""A model whose files are on this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from docmill.catalogue.gguf_file import read_header


class ModelKind(StrEnum):
    """What the path of a model is. SIMULATED: the vocabulary of a real model, for the simulated engine."""

    GGUF = "gguf"
    DIRECTORY = "directory"
    SIMULATED = "simulated"


@dataclass(frozen=True, slots=True)
class Model:
    """`context_window` and `suggested_chunk_tokens` are in tokens; `sha256` is the file's, if it is known."""

    name: str
    path: Path
    kind: ModelKind
    context_window: int
    suggested_chunk_tokens: int | None = None
    suggested_sampling: Mapping[str, Any] = field(default_factory=dict)
    sha256: str | None = None


def architecture_of(model: Model) -> str:
    """`general.architecture` of a GGUF file, or the first of a directory's `architectures`; "" if it has none.

    Raises ModelDamaged for a damaged GGUF file.
    """
    if model.kind is not ModelKind.DIRECTORY:
        return read_header(model.path).architecture
    try:
        names = json.loads((model.path / "config.json").read_text("utf-8")).get("architectures")
        return str(names[0])
    except (OSError, ValueError, TypeError, AttributeError, LookupError):
        return ""
