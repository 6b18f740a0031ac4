"""What to load: sent to the engine process, so every field must pickle."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

from docmill.catalogue.local_model import Model
from docmill.engine_table import engine_info
from docmill.settings.defaults import DEFAULT_SLOTS
from docmill.worker.engines.base import ModelUnusable


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One model on one engine.

    `quantization`, `kv_cache`, `cuda_enabled` and `cuda_layers` are those of `optimization` in config.yaml; an engine
    that does not support a value refuses to load.

    Attributes:
        home: Directory in which converted weights are cached.
        slots: Requests that run at once.
        threads: CPU threads; None uses one per physical core.
        quantization: Precision of keys and values; None uses the engine's default. The weights stay as in their file.
        context_window: Tokens; reduces the model's own window.
        options: Options of this engine, see its class.
    """

    engine: str
    model: Model
    home: Path
    slots: int = DEFAULT_SLOTS
    threads: int | None = None
    quantization: str | None = None
    context_window: int | None = None
    kv_cache: bool = True
    cuda_enabled: bool | None = None
    cuda_layers: int | Literal["all"] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def window(self) -> int:
        """The effective context window in tokens."""
        return min(self.context_window or self.model.context_window, self.model.context_window)

    @property
    def cpu_threads(self) -> int:
        """`threads`, or one per physical core that this process may use."""
        if self.threads:
            return self.threads
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(psutil.cpu_count(logical=False) or usable, usable)

    @property
    def kv_precision(self) -> str:
        """The precision of keys and values: `quantization`, or the engine's default.

        Raises ModelUnusable for one that the engine does not support.
        """
        if not self.kv_cache:
            raise ModelUnusable(
                "optimization.kv_cache: false is not supported: without a cache of keys and values, every token would "
                "cost the whole prompt again; remove it"
            )
        supported = engine_info(self.engine).kv_precisions
        if self.quantization is not None and self.quantization not in supported:
            raise ModelUnusable(
                f"optimization.quantization: {self.quantization} is not supported by {self.engine}; "
                f"use {' or '.join(supported)}, or remove it"
            )
        return self.quantization or supported[0]

    def without_gpu(self, engine: str) -> tuple[str, ...]:
        """Remarks for an engine that runs on the CPU here. Raises ModelUnusable if GPU layers are configured.

        `cuda_enabled: true` and `cuda_layers: all` only allow a GPU, so that one config.yaml serves all machines.
        """
        if isinstance(self.cuda_layers, int) and self.cuda_layers > 0:
            raise ModelUnusable(
                f"optimization.cuda_layers: {self.cuda_layers} is not supported: {engine} has no GPU here; remove it, "
                "or write cuda_layers: all to use a GPU only if there is one"
            )
        if self.cuda_enabled or self.cuda_layers == "all":
            return (f"CUDA is enabled, but {engine} has no GPU here: it runs on the CPU",)
        return ()
