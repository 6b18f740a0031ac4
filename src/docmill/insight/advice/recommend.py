"""Which model for this machine and this use: the decision tree docmill began with, and newer ones beside it.

The tree: Basic -> Phi-2; Standard -> Orca-2 for education, Mistral-7B for general use; Advanced -> Llama-2, 13B or
larger. Where it asks for the use and has no branch (mathematics, research on Standard), the guide's table of models
answers: Phi for mathematics and reasoning, Llama for research.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice

from docmill.catalogue.known_models import ENTRIES, find_entry
from docmill.catalogue.model_entry import CatalogueEntry, Tier
from docmill.formatting import gib, gib_of
from docmill.insight.advice.tiers import Standing, standing_of
from docmill.sizing.catalogue_fit import Fit, Place, fit
from docmill.sizing.machine import Machine

_DEMO = "smollm2-135m-instruct"
_WINDOW = {None: 4096, Tier.BASIC: 8192, Tier.STANDARD: 8192, Tier.ADVANCED: 16_384}  # longest, in tokens
_MOST_BESIDE = 3


class UseCase(StrEnum):
    """What the model is for."""

    EDUCATION = "education"
    GENERAL = "general"
    MATH = "math"
    RESEARCH = "research"


_STANDARD = {
    UseCase.EDUCATION: ("orca-2-7b", "the tree: Standard, education"),
    UseCase.GENERAL: ("mistral-7b-instruct-v0.3", "the tree: Standard, general use"),
    UseCase.MATH: ("phi-3-mini-4k-instruct", "the guide's table: Phi for mathematics; the one of its size"),
    UseCase.RESEARCH: ("llama-2-7b-chat", "the guide's table: Llama for research; the one of its size"),
}
# Offered beside the tree's answer, the most wanted first.
_BESIDE = {
    None: ("smollm2-360m-instruct", "qwen3-0.6b", "llama-3.2-1b-instruct"),
    Tier.BASIC: ("qwen3-4b", "llama-3.2-3b-instruct", "qwen3-1.7b"),
    Tier.STANDARD: ("qwen3-8b", "llama-3.1-8b-instruct", "qwen3-4b", "llama-3.2-3b-instruct"),
    Tier.ADVANCED: ("llama-3.1-70b-instruct", "qwen3-32b", "gemma-2-27b-it", "qwen3-14b", "llama-3.1-8b-instruct"),
}
# What the guide's table names for a use, on a tier whose branch of the tree does not ask for it.
_BY_USE: dict[tuple[Tier | None, UseCase], str] = {
    (Tier.ADVANCED, UseCase.EDUCATION): "orca-2-13b",
    (Tier.ADVANCED, UseCase.MATH): "phi-3.5-moe-instruct",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """A model, how it lies on the machine, and why it is named."""

    entry: CatalogueEntry
    fit: Fit
    why: str


@dataclass(frozen=True, slots=True)
class Recommendation:
    """`first` is the tree's answer; `beside` may serve better; `remarks` are for the reader, one sentence each."""

    standing: Standing
    use_case: UseCase
    first: Choice
    beside: tuple[Choice, ...]
    remarks: tuple[str, ...]


def recommend(machine: Machine, use_case: UseCase) -> Recommendation:
    """What the tree says for this machine, with the settings that fit it."""
    standing = standing_of(machine)
    longest = _WINDOW[standing.tier]
    first = _first(machine, standing.tier, use_case, longest)
    beside = tuple(islice(_beside(machine, standing, use_case, first, longest), _MOST_BESIDE))
    remarks = (*_remarks(machine, standing, first), *_largest(machine, first, longest))
    return Recommendation(standing, use_case, first, beside, remarks)


def _first(machine: Machine, tier: Tier | None, use_case: UseCase, longest: int) -> Choice:
    match tier:
        case None:
            processor_only = replace(machine, gpus=())
            return _choice(_DEMO, processor_only, longest, "below Basic: the demo's model works on every machine")
        case Tier.BASIC:
            return _choice("phi-2", machine, longest, "the tree: Basic")
        case Tier.STANDARD:
            return _choice(_STANDARD[use_case][0], machine, longest, _STANDARD[use_case][1])
        case Tier.ADVANCED:
            largest = _choice("llama-2-70b-chat", machine, longest, "the tree: Advanced; the largest with room here")
            if largest.fit.place is Place.GPU and largest.fit.is_roomy(largest.entry.context_window):
                return largest
            return _choice("llama-2-13b-chat", machine, longest, "the tree: Advanced, 13B or larger")


def _beside(machine: Machine, standing: Standing, use_case: UseCase, first: Choice, longest: int) -> Iterator[Choice]:
    """The guide's own for the use where it fits, then newer ones that have room; on the GPU where there is one."""
    tier, place = standing.tier, Place.GPU if machine.gpus else Place.MEMORY
    if (tier, use_case) in _BY_USE:
        choice = _choice(_BY_USE[tier, use_case], machine, longest, "the guide's table names its family for this use")
        if choice.fit.fits:
            yield choice
    offered = _BESIDE[standing.tier_of("GPU memory") if tier is None and machine.gpus else tier]
    for name in offered:
        choice = _choice(name, machine, longest, "")
        half = min(choice.entry.context_window, longest) // 2
        if choice.entry is not first.entry and choice.fit.place is place and choice.fit.is_roomy(half):
            yield replace(choice, why=_why_better(choice, first))


def _choice(name: str, machine: Machine, longest: int, why: str) -> Choice:
    entry = find_entry(name)
    assert entry is not None, name  # noqa: S101 - the names above are the catalogue's
    return Choice(entry, fit(entry, machine, longest), why)


def _why_better(choice: Choice, first: Choice) -> str:
    """What can be said of a newer model by the numbers: age, window, size, licence."""
    new, old = choice.entry, first.entry
    reasons = []
    if new.published > old.published:
        reasons.append(f"newer ({new.published} against {old.published})")
    if choice.fit.window > first.fit.window:
        reasons.append(
            f"a window of {choice.fit.window:,} tokens against {first.fit.window:,}: longer chunks, fewer merges"
        )
    elif new.context_window > old.context_window:
        reasons.append(f"made for {new.context_window:,} tokens, not {old.context_window:,}")
    if new.parameter_count > 1.2 * old.parameter_count:
        reasons.append(f"larger ({new.parameters} against {old.parameters})")
    elif old.parameter_count > 1.2 * new.parameter_count:
        reasons.append(f"smaller and so faster ({new.parameters} against {old.parameters})")
    if new.license != old.license:
        reasons.append(f"licence {new.license}")
    return "; ".join(reasons)


def _remarks(machine: Machine, standing: Standing, first: Choice) -> Iterator[str]:
    fitted = first.fit
    if not fitted.fits:
        yield (
            f"{first.entry.name} does not fit: {gib(fitted.missing_bytes)} are missing for one job of "
            f"{fitted.window:,} tokens; take one of the others, or more memory"
        )
    if standing.tier is None:
        lacking = ", ".join(f"{part.name} {part.has} of {part.next_needs}" for part in standing.lacking)
        yield f"below Basic by {lacking}; what works: the demo, and models of less than 2B parameters, slowly"
        if machine.gpus:
            yield "its GPU alone is enough for the models beside the demo's; the processor will hold them up"
    elif machine.gpus and fitted.place is Place.MEMORY:
        yield f"{first.entry.name} has no room on the GPU and runs on the processor, by {fitted.engine}"
    if fitted.place is Place.GPU and fitted.engine == "llamacpp":
        yield (
            "no EXL2 conversion of it is in the catalogue: its GGUF runs on the GPU with a CUDA build of xllamacpp "
            "(PyPI's is for the processor), and an EXL2 or GPTQ directory of your own with exllamav2"
        )
    if fitted.place is Place.GPU and fitted.engine == "exllamav2":
        yield "exllamav2 needs torch and flash-attn: docs/gpu.md has the order of installation"
    if fitted.gpus > 1:
        share = ",".join(f"{gpu.total_bytes / (1 << 30) - 2:.0f}" for gpu in machine.gpus)
        yield f"it is laid over {fitted.gpus} GPUs: start its worker with `docmill worker --gpu-split {share}`"
    elif fitted.place is Place.GPU and len(machine.gpus) > 1:
        yield f"`docmill worker` runs one on each of the {len(machine.gpus)} GPUs"
    if fitted.window < first.entry.context_window and fitted.window < _WINDOW[standing.tier]:
        most = first.entry.context_window
        yield f"a window of {fitted.window:,} of its {most:,} tokens leaves room for {fitted.slots} jobs at once"


def _largest(machine: Machine, first: Choice, longest: int) -> Iterator[str]:
    """The largest model that fits by memory alone, where it is larger than the first."""
    place = Place.GPU if machine.gpus else Place.MEMORY
    for entry in sorted(ENTRIES, key=lambda entry: entry.parameter_count, reverse=True):
        if entry.parameter_count <= first.entry.parameter_count:
            return
        found = fit(entry, machine, longest)
        if found.fits and found.place is place:
            sizes = gib_of(found.needed_bytes, found.available_bytes)
            slots = (
                f"{found.slots} {'job' if found.slots == 1 else 'jobs'} at once in windows of {found.window:,} tokens"
            )
            yield f"the largest that fits by memory alone: {entry.name} ({sizes}, {slots}), slower as it is larger"
            return
