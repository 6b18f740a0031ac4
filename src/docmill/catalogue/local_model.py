"""A model whose files are here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any


class ModelKind(StrEnum):
    """What the path of a model is. SIMULATED: the vocabulary of a real model, for the simulated engine."""

    GGUF = "gguf"
    DIRECTORY = "directory"
    SIMULATED = "simulated"


@dataclass(frozen=True, slots=True)
class Model:
    """`context_window` and `suggested_chunk_tokens` in tokens; `sha256` of the file where it is known."""

    name: str
    path: Path
    kind: ModelKind
    context_window: int
    suggested_chunk_tokens: int | None = None
    suggested_sampling: Mapping[str, Any] = field(default_factory=dict)
    sha256: str | None = None
