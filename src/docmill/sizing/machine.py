"""The facts of a machine: processor, memory, GPUs, disk, limits of its container. Nothing is judged here."""

from __future__ import annotations

import os
import resource
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from docmill.sizing.gpu_devices import Gpu, NoGpu, driver_version, read_gpus

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
_UNLIMITED = 1 << 60  # cgroup v1 has a number of this size for "no limit"
_GPU_DEVICE = Path("/dev/nvidiactl")


@dataclass(frozen=True, slots=True)
class Cpu:
    """Cores of the machine; `usable` of them are available to this process (affinity, container quota).

    `instructions` are the instruction sets that engines use; None if the system does not report them.
    """

    name: str
    physical: int
    logical: int
    usable: int
    instructions: tuple[str, ...] | None

    @property
    def engine_threads(self) -> int:
        """One thread for each usable physical core."""
        return max(1, min(self.physical, self.usable))


@dataclass(frozen=True, slots=True)
class Memory:
    """`limit_bytes` is the container's limit; None without one."""

    total_bytes: int
    free_bytes: int
    limit_bytes: int | None = None

    @property
    def usable_bytes(self) -> int:
        """The most that this process can allocate."""
        return min(self.total_bytes, self.limit_bytes or self.total_bytes)


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system of the home directory. `is_writable`: the home can be created and written."""

    path: str
    total_bytes: int
    free_bytes: int
    filesystem: str
    is_writable: bool


@dataclass(frozen=True, slots=True)
class Machine:
    """The facts of one machine.

    `no_gpu` says why no GPU is available; `has_gpu_device` is true if the system has one even though the driver does
    not list it. Without `disk`, the disk is not judged. `is_pretended`: some facts were given to plan with.
    `docmill doctor --json` prints the fields under these names.
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
        """The memory of the largest GPU; 0 without one."""
        return max((gpu.total_bytes for gpu in self.gpus), default=0)


def read_machine(home: Path) -> Machine:
    """Read the facts of this machine."""
    gpus, no_gpu = _gpus()
    return Machine(
        cpu=_cpu(),
        memory=_memory(),
        gpus=gpus,
        no_gpu=no_gpu,
        has_gpu_device=_GPU_DEVICE.exists(),
        driver=driver_version(),
        disk=_disk(home),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )


def hypothetical(
    machine: Machine,
    *,
    cores: int | None = None,
    memory_bytes: int | None = None,
    vram_bytes: tuple[int, ...] | None = None,
    disk_bytes: int | None = None,
) -> Machine:
    """The machine with these parts instead of its own; the disk is judged only if `disk_bytes` is given."""
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
    """The type of the file system of a path, such as ext4 or nfs4; "" if the system does not report it."""
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
    """The processor's name and flags from /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return "unknown processor", None
    values = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    flags = values.get("flags", values.get("features"))
    name = values.get("model name", "unknown processor")
    return name, None if flags is None else frozenset(flags.split())


def _memory() -> Memory:
    now = psutil.virtual_memory()
    limit = memory_limit(cgroup_directories())
    if limit is None or limit >= now.total:
        return Memory(now.total, now.available)
    return Memory(now.total, max(0, min(now.available, limit - (memory_used(cgroup_directories()) or 0))), limit)


def cgroup_directories() -> list[Path]:
    """The control groups of this process (Linux), the innermost first; the limits of all of them apply."""
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
    """The smallest memory limit of these control groups, in bytes; None without one."""
    names = ("memory.max", "memory.limit_in_bytes")
    limits = [value for d in directories for n in names if (value := _number(d / n)) is not None]
    return min((limit for limit in limits if limit < _UNLIMITED), default=None)


def memory_used(directories: list[Path]) -> int | None:
    """The memory use of the innermost group that reports it, in bytes."""
    names = ("memory.current", "memory.usage_in_bytes")
    return next((value for d in directories for n in names if (value := _number(d / n)) is not None), None)


def cpu_quota(directories: list[Path]) -> float | None:
    """The smallest CPU quota of these control groups, in processors; None without one."""
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
    except (OSError, ValueError):  # missing, or "max"
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
    """The path, or its nearest parent that exists."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists()).resolve()
