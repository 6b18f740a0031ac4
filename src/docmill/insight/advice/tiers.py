"""The tier of a machine (Basic, Standard or Advanced), judged part by part."""

from __future__ import annotations

from dataclasses import dataclass

from docmill.catalogue.model_entry import Tier
from docmill.formatting import gb, gib
from docmill.sizing.machine import Machine

_CORES, _MEMORY, _GPU_MEMORY, _DISK = "CPU cores", "memory", "GPU memory", "free disk"
_NEEDS = {  # cores and GB
    Tier.BASIC: {_CORES: 4, _MEMORY: 8, _GPU_MEMORY: 0, _DISK: 10},
    Tier.STANDARD: {_CORES: 4, _MEMORY: 16, _GPU_MEMORY: 6, _DISK: 20},
    Tier.ADVANCED: {_CORES: 16, _MEMORY: 32, _GPU_MEMORY: 12, _DISK: 50},
}
_GB = 10**9 * 0.95  # firmware, kernel and graphics keep some of the memory that a machine is sold with


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a machine: what it has, the best tier that it satisfies, and what the next tier needs."""

    name: str
    has: str
    tier: Tier | None
    next_needs: str


@dataclass(frozen=True, slots=True)
class Standing:
    """The tier of a machine is that of its weakest part; None means below Basic."""

    tier: Tier | None
    parts: tuple[Part, ...]

    @property
    def next_tier(self) -> Tier | None:
        """The next higher tier; None at the top."""
        tiers = list(Tier)
        following = 0 if self.tier is None else tiers.index(self.tier) + 1
        return tiers[following] if following < len(tiers) else None

    @property
    def gpu_tier(self) -> Tier | None:
        """The best tier that the GPU memory satisfies."""
        return next(part.tier for part in self.parts if part.name == _GPU_MEMORY)

    @property
    def lacking(self) -> tuple[Part, ...]:
        """The parts that keep the machine from the next tier."""
        return tuple(part for part in self.parts if part.tier is self.tier)


def standing_of(machine: Machine) -> Standing:
    """Judge each part of a machine; a disk that is None is not judged."""
    cores, memory, vram = machine.cpu.engine_threads, machine.memory.usable_bytes, machine.vram_bytes
    parts = [
        _part(_CORES, cores, str(cores)),
        _part(_MEMORY, memory, gib(memory)),
        _part(_GPU_MEMORY, vram, gib(vram) if machine.gpus else "none"),
    ]
    if machine.disk is not None:
        parts.append(_part(_DISK, machine.disk.free_bytes, gb(machine.disk.free_bytes)))
    reached = [part.tier for part in parts]
    order = [None, *Tier]
    return Standing(min(reached, key=order.index), tuple(parts))


def _part(name: str, has: int, shown: str) -> Part:
    unit, suffix = (1, "") if name == _CORES else (_GB, " GB")
    reached: Tier | None = None
    for tier, needs in _NEEDS.items():
        if has < needs[name] * unit:
            return Part(name, shown, reached, f"{needs[name]}{suffix}")
        reached = tier
    return Part(name, shown, reached, "")
