"""What to load: handed to the engine process, so every field must pickle."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from catalogue.model import Model


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One model on one engine. `context_window` caps the model's own, in tokens; None leaves it.

    `home` is where converted weights are cached. `options` are the engine's own.
    """

    engine: str
    model: Model
    home: Path
    slots: int = 16
    threads: int | None = None
    quantization: str | None = None
    context_window: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def window(self) -> int:
        """The context window the engine keeps to, in tokens."""
        return min(self.context_window or self.model.context_window, self.model.context_window)

    @property
    def cpu_threads(self) -> int:
        """The threads asked for, else one for each physical core that this process may use."""
        if self.threads:
            return self.threads
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(psutil.cpu_count(logical=False) or usable, usable)
