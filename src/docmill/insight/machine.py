"""The facts of a machine, read once: processor, memory, GPUs, disk, limits of its container. No judgement here."""

from __future__ import annotations

import os
import resource
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from docmill.worker.gpu_devices import Gpu, NoGpu, driver_version, read_gpus

_SIMD = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "amx_tile": "AMX",
    "amx_bf16": "AMX BF16",
    "asimd": "NEON",
    "sve": "SVE",
}
_UNLIMITED = 1 << 60  # cgroup 1 writes a number like this for "no limit"
_GPU_DEVICE = Path("/dev/nvidiactl")


@dataclass(frozen=True, slots=True)
class Cpu:
    """Cores of the machine, and how many of them this process may use (affinity and the container's quota).

    `instructions` are the ones engines make use of, None where the system does not tell.
    """

    name: str
    physical: int
    logical: int
    usable: int
    instructions: tuple[str, ...] | None

    @property
    def engine_threads(self) -> int:
        """One for each physical core that may be used."""
        return max(1, min(self.physical, self.usable))


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. `limit_bytes` is the container's, None without one."""

    total_bytes: int
    free_bytes: int
    limit_bytes: int | None = None

    @property
    def usable_bytes(self) -> int:
        """What this process can ever have."""
        return min(self.total_bytes, self.limit_bytes or self.total_bytes)


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system under the home directory, in bytes. `is_writable`: whether the home can be written or made."""

    path: str
    total_bytes: int
    free_bytes: int
    filesystem: str
    is_writable: bool


@dataclass(frozen=True, slots=True)
class Machine:
    """All of it. `no_gpu` says why none is seen; `has_gpu_device`: the system has one, whatever the driver says.

    `disk` None: not to be judged. `is_pretended`: some of it was made up, to plan with.
    """

    cpu: Cpu
    memory: Memory
    gpus: tuple[Gpu, ...]
    no_gpu: str
    has_gpu_device: bool
    driver: str | None
    disk: Disk | None
    open_files: int
    is_pretended: bool = False

    @property
    def vram_bytes(self) -> int:
        """Of the largest GPU; 0 without one."""
        return max((gpu.total_bytes for gpu in self.gpus), default=0)


def read_machine(home: Path) -> Machine:
    """This machine, now."""
    gpus, why = _gpus()
    return Machine(
        cpu=_cpu(),
        memory=_memory(),
        gpus=gpus,
        no_gpu=why,
        has_gpu_device=_GPU_DEVICE.exists(),
        driver=driver_version(),
        disk=_disk(home),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )


def pretend(
    machine: Machine,
    *,
    cores: int | None = None,
    memory_bytes: int | None = None,
    vram_bytes: tuple[int, ...] | None = None,
    disk_bytes: int | None = None,
) -> Machine:
    """The machine with these parts instead of its own; its disk is not judged unless it is given, too."""
    cpu, memory, gpus = machine.cpu, machine.memory, machine.gpus
    if cores is not None:
        cpu = replace(cpu, name="a processor to be", physical=cores, logical=cores, usable=cores)
    if memory_bytes is not None:
        memory = Memory(memory_bytes, memory_bytes)
    if vram_bytes is not None:
        sizes = [size for size in vram_bytes if size]
        gpus = tuple(Gpu(i, f"to-be-{i}", "a GPU to be", size, size) for i, size in enumerate(sizes))
    disk = None if disk_bytes is None else Disk("a disk to be", disk_bytes, disk_bytes, "", is_writable=True)
    return replace(machine, cpu=cpu, memory=memory, gpus=gpus, disk=disk, is_pretended=True)


def filesystem_of(path: Path) -> str:
    """The type of the file system that holds a path, as in ext4 or nfs4; "" where the system does not tell."""
    place = _existing(path)
    mounts = [p for p in psutil.disk_partitions(all=True) if place.is_relative_to(p.mountpoint)]
    return max(mounts, key=lambda p: len(p.mountpoint)).fstype.lower() if mounts else ""


def _cpu() -> Cpu:
    logical = psutil.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else logical
    quota = cpu_quota(cgroup_directories())
    name, flags = _cpuinfo()
    return Cpu(
        name=name,
        physical=psutil.cpu_count(logical=False) or logical,
        logical=logical,
        usable=usable if quota is None else max(1, min(usable, int(quota))),
        instructions=None if flags is None else tuple(shown for flag, shown in _SIMD.items() if flag in flags),
    )


def _cpuinfo() -> tuple[str, frozenset[str] | None]:
    """The processor's name and flags, as Linux tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return "processor of unknown name", None
    values = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    flags = values.get("flags", values.get("features"))
    name = values.get("model name", "processor of unknown name")
    return name, None if flags is None else frozenset(flags.split())


def _memory() -> Memory:
    now = psutil.virtual_memory()
    limit = memory_limit(cgroup_directories())
    if limit is None or limit >= now.total:
        return Memory(now.total, now.available)
    return Memory(now.total, max(0, min(now.available, limit - (memory_used(cgroup_directories()) or 0))), limit)


def cgroup_directories() -> list[Path]:
    """The control groups of this process, the innermost first (Linux); what is above limits it, too."""
    root = Path("/sys/fs/cgroup")
    try:
        own = Path("/proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        return []
    found: list[Path] = []
    for line in own:
        _, controllers, path = line.split(":", 2)
        base = root if not controllers else root / controllers
        inside = base / path.lstrip("/")
        found += [p for p in (inside, *inside.parents) if p.is_relative_to(base)]
    return list(dict.fromkeys(found))


def memory_limit(directories: list[Path]) -> int | None:
    """Bytes, the smallest limit of all the groups; None without one."""
    names = ("memory.max", "memory.limit_in_bytes")
    limits = [value for d in directories for n in names if (value := _number(d / n)) is not None]
    return min((limit for limit in limits if limit < _UNLIMITED), default=None)


def memory_used(directories: list[Path]) -> int | None:
    """Bytes that the innermost group with a count has."""
    names = ("memory.current", "memory.usage_in_bytes")
    return next((value for d in directories for n in names if (value := _number(d / n)) is not None), None)


def cpu_quota(directories: list[Path]) -> float | None:
    """Processors' worth of time, the smallest quota of all the groups; None without one."""
    quotas: list[float] = []
    for directory in directories:
        try:
            quota, period = (directory / "cpu.max").read_text("utf-8").split()[:2]
        except (OSError, ValueError):
            quota, period = str(_number(directory / "cpu.cfs_quota_us")), str(_number(directory / "cpu.cfs_period_us"))
        if quota.isdigit() and period.isdigit():
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text("utf-8"))
    except (OSError, ValueError):  # not there, or "max"
        return None


def _gpus() -> tuple[tuple[Gpu, ...], str]:
    try:
        return tuple(read_gpus()), ""
    except NoGpu as error:
        return (), str(error)


def _disk(home: Path) -> Disk:
    place = _existing(home)
    usage = shutil.disk_usage(place)
    return Disk(str(home), usage.total, usage.free, filesystem_of(place), os.access(place, os.W_OK | os.X_OK))


def _existing(path: Path) -> Path:
    """The path, or the nearest of its parents that is there."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists()).resolve()
