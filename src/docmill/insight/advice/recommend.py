"""Recommend a model for a machine and a use: the answer of a decision tree, and newer models as alternatives.

The tree: Basic -> Phi-2; Standard -> Orca-2 for education, Mistral-7B for general use; Advanced -> Llama-2, 13B or
larger. For uses without a branch (mathematics, research on Standard), the table of models that accompanies the tree
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
from docmill.settings.defaults import Profile
from docmill.sizing.catalogue_fit import Fit, Place, fit
from docmill.sizing.machine import Machine

_WINDOW = {
    None: 4096,
    Tier.BASIC: 8192,
    Tier.STANDARD: 8192,
    Tier.ADVANCED: 16_384,
}  # the longest to recommend, in tokens
_MOST_ALTERNATIVES = 3


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
# Alternatives to the tree's answer, in order of preference.
_ALTERNATIVES = {
    None: ("smollm2-360m-instruct", "qwen3-0.6b", "llama-3.2-1b-instruct"),
    Tier.BASIC: ("qwen3-4b", "llama-3.2-3b-instruct", "qwen3-1.7b"),
    Tier.STANDARD: ("qwen3-8b", "llama-3.1-8b-instruct", "qwen3-4b", "llama-3.2-3b-instruct"),
    Tier.ADVANCED: ("llama-3.1-70b-instruct", "qwen3-32b", "gemma-2-27b-it", "qwen3-14b", "llama-3.1-8b-instruct"),
}
# What the accompanying table names for a use, on a tier where the tree does not ask for the use.
_BY_USE: dict[tuple[Tier | None, UseCase], str] = {
    (Tier.ADVANCED, UseCase.EDUCATION): "orca-2-13b",
    (Tier.ADVANCED, UseCase.MATH): "phi-3.5-moe-instruct",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """A model, how it fits the machine, and why it is recommended."""

    entry: CatalogueEntry
    fit: Fit
    why: str


@dataclass(frozen=True, slots=True)
class Recommendation:
    """`first` is the tree's answer; `alternatives` may be better; `remarks` are one sentence each, for the user."""

    standing: Standing
    use_case: UseCase
    first: Choice
    alternatives: tuple[Choice, ...]
    remarks: tuple[str, ...]


def recommend(machine: Machine, use_case: UseCase) -> Recommendation:
    """The tree's answer and alternatives for this machine, with settings that fit it."""
    standing = standing_of(machine)
    longest = _WINDOW[standing.tier]
    first = _first(machine, standing.tier, use_case, longest)
    alternatives = tuple(islice(_alternatives(machine, standing, use_case, first, longest), _MOST_ALTERNATIVES))
    remarks = (*_remarks(machine, standing, first), *_largest(machine, first, longest))
    return Recommendation(standing, use_case, first, alternatives, remarks)


def _first(machine: Machine, tier: Tier | None, use_case: UseCase, longest: int) -> Choice:
    match tier:
        case None:
            processor_only = replace(machine, gpus=())
            return _choice(
                Profile().model, processor_only, longest, "below Basic: the demo's model works on every machine"
            )
        case Tier.BASIC:
            return _choice("phi-2", machine, longest, "the tree: Basic")
        case Tier.STANDARD:
            return _choice(_STANDARD[use_case][0], machine, longest, _STANDARD[use_case][1])
        case Tier.ADVANCED:
            largest = _choice("llama-2-70b-chat", machine, longest, "the tree: Advanced; the largest with room here")
            if largest.fit.place is Place.GPU and largest.fit.is_roomy(largest.entry.context_window):
                return largest
            return _choice("llama-2-13b-chat", machine, longest, "the tree: Advanced, 13B or larger")


def _alternatives(
    machine: Machine, standing: Standing, use_case: UseCase, first: Choice, longest: int
) -> Iterator[Choice]:
    """The table's model for the use if it fits, then newer models; on the GPU if there is one."""
    tier, place = standing.tier, Place.GPU if machine.gpus else Place.MEMORY
    if (tier, use_case) in _BY_USE:
        choice = _choice(_BY_USE[tier, use_case], machine, longest, "the guide's table names its family for this use")
        if choice.fit.fits:
            yield choice
    offered = _ALTERNATIVES[standing.gpu_tier if tier is None and machine.gpus else tier]
    for name in offered:
        choice = _choice(name, machine, longest, "")
        half = min(choice.entry.context_window, longest) // 2
        if choice.entry is not first.entry and choice.fit.place is place and choice.fit.is_roomy(half):
            yield replace(choice, why=_why_better(choice, first))


def _choice(name: str, machine: Machine, longest: int, why: str) -> Choice:
    entry = find_entry(name)
    assert entry is not None, name  # noqa: S101 - all names above are in the catalogue
    return Choice(entry, fit(entry, machine, longest), why)


def _why_better(choice: Choice, first: Choice) -> str:
    """Compare a newer model with the first by the numbers: age, window, size, licence."""
    new, old = choice.entry, first.entry
    reasons = []
    if new.published > old.published:
        reasons.append(f"newer ({new.published} against {old.published})")
    if choice.fit.window > first.fit.window:
        reasons.append(
            f"a window of {choice.fit.window:,} tokens against {first.fit.window:,}: longer chunks, fewer merges"
        )
    elif new.context_window > old.context_window:
        reasons.append(f"supports {new.context_window:,} tokens, not {old.context_window:,}")
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
            f"{fitted.window:,} tokens; use one of the others, or more memory"
        )
    if standing.tier is None:
        lacking = ", ".join(f"{part.name} {part.has} of {part.next_needs}" for part in standing.lacking)
        yield f"below Basic by {lacking}; what works: the demo, and models of less than 2B parameters, slowly"
        if machine.gpus:
            yield "the GPU alone is enough for the alternatives; the processor will slow them down"
    elif machine.gpus and fitted.place is Place.MEMORY:
        yield f"{first.entry.name} does not fit on the GPU and runs on the processor, with {fitted.engine}"
    if fitted.place is Place.GPU and fitted.engine == "llamacpp":
        yield (
            "the catalogue has no EXL2 conversion of it: its GGUF runs on the GPU with a CUDA build of xllamacpp "
            "(PyPI's is for the processor), and an EXL2 or GPTQ directory of your own with exllamav2"
        )
    if fitted.place is Place.GPU and fitted.engine == "exllamav2":
        yield "exllamav2 needs torch and flash-attn: docs/gpu.md has the order of installation"
    if fitted.gpus > 1:
        share = ",".join(f"{gpu.total_bytes / (1 << 30) - 2:.0f}" for gpu in machine.gpus)
        yield f"it is split over {fitted.gpus} GPUs: start its worker with `docmill worker --gpu-split {share}`"
    elif fitted.place is Place.GPU and len(machine.gpus) > 1:
        yield f"`docmill worker` starts one worker on each of the {len(machine.gpus)} GPUs"
    if fitted.window < first.entry.context_window and fitted.window < _WINDOW[standing.tier]:
        most = first.entry.context_window
        yield f"a window of {fitted.window:,} of its {most:,} tokens leaves room for {fitted.slots} jobs at once"


def _largest(machine: Machine, first: Choice, longest: int) -> Iterator[str]:
    """The largest model that fits by memory alone, if it is larger than the first."""
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
