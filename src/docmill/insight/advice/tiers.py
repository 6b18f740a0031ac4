"""Which tier a machine is of: Basic, Standard or Advanced, part by part, by the table docmill began with."""

from __future__ import annotations

from dataclasses import dataclass

from docmill.catalogue.model_entry import Tier
from docmill.formatting import gb, gib
from docmill.sizing.machine import Machine

_GB = 10**9
_KEPT_BACK = 0.95  # firmware, kernel and graphics keep some of what a machine is sold with


@dataclass(frozen=True, slots=True)
class Needs:
    """What a tier asks for. Memory and disk in GB, the GPU's memory too; 0: none."""

    cores: int
    memory: int
    vram: int
    disk: int


NEEDS = {
    Tier.BASIC: Needs(cores=4, memory=8, vram=0, disk=10),
    Tier.STANDARD: Needs(cores=4, memory=16, vram=6, disk=20),
    Tier.ADVANCED: Needs(cores=16, memory=32, vram=12, disk=50),
}


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a machine: what it has, the best tier it is enough for, and what the next one asks for."""

    name: str
    has: str
    tier: Tier | None
    next_needs: str


@dataclass(frozen=True, slots=True)
class Standing:
    """The tier of a machine is that of its weakest part; None: below Basic."""

    tier: Tier | None
    parts: tuple[Part, ...]

    @property
    def next_tier(self) -> Tier | None:
        """The one above, None at the top."""
        if self.tier is None:
            return Tier.BASIC
        tiers = list(Tier)
        return tiers[tiers.index(self.tier) + 1] if self.tier is not tiers[-1] else None

    def tier_of(self, part: str) -> Tier | None:
        """What one part alone is enough for."""
        return next(p.tier for p in self.parts if p.name == part)

    @property
    def lacking(self) -> tuple[Part, ...]:
        """The parts that keep it from the next tier."""
        return tuple(part for part in self.parts if part.tier is self.tier)


def standing_of(machine: Machine) -> Standing:
    """Judge each part; a disk that is None is not judged."""
    cores = machine.cpu.engine_threads
    vram = gib(machine.vram_bytes) if machine.gpus else "none"
    parts = [
        _part("CPU cores", "cores", cores, str(cores)),
        _part("memory", "memory", machine.memory.usable_bytes, gib(machine.memory.usable_bytes)),
        _part("GPU memory", "vram", machine.vram_bytes, vram),
    ]
    if machine.disk is not None:
        parts.append(_part("free disk", "disk", machine.disk.free_bytes, gb(machine.disk.free_bytes)))
    return Standing(_lowest(parts), tuple(parts))


def _part(name: str, need: str, has: int, shown: str) -> Part:
    unit, kept_back = (1, 1.0) if need == "cores" else (_GB, _KEPT_BACK)
    reached: Tier | None = None
    for tier, needs in NEEDS.items():
        if has < getattr(needs, need) * unit * kept_back:
            wanted = f"{getattr(needs, need)}{'' if need == 'cores' else ' GB'}"
            return Part(name, shown, reached, wanted)
        reached = tier
    return Part(name, shown, reached, "")


def _lowest(parts: list[Part]) -> Tier | None:
    if any(part.tier is None for part in parts):
        return None
    order = list(Tier)
    return min((part.tier for part in parts if part.tier is not None), key=order.index)
