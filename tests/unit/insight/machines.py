"""Made-up machines to judge."""

from __future__ import annotations

from docmill.sizing.gpu_devices import Gpu
from docmill.sizing.machine import Cpu, Disk, Machine, Memory

GIB = 1 << 30
GB = 10**9


def machine(
    cores: int = 8,
    memory: float = 16,
    vram: tuple[float, ...] = (),
    disk: float | None = 100,
    *,
    free_vram: float | None = None,
) -> Machine:
    """One of so many cores and GiB; the disk in GB."""
    gpus = tuple(
        Gpu(i, f"u{i}", "Some GPU", int(size * GIB), int((size if free_vram is None else free_vram) * GIB))
        for i, size in enumerate(vram)
    )
    return Machine(
        cpu=Cpu("A processor", cores, 2 * cores, 2 * cores, ("AVX2",)),
        memory=Memory(int(memory * GIB), int(memory * GIB)),
        gpus=gpus,
        no_gpu="" if gpus else "there is none",
        has_gpu_device=bool(gpus),
        driver="570.1" if gpus else None,
        disk=None if disk is None else Disk("/home/you", int(2 * disk * GB), int(disk * GB), "ext4", is_writable=True),
        open_files=4096,
    )
