"""Judgements of a machine and of what is installed on it. Pure functions: facts in, findings out."""

from __future__ import annotations

from collections.abc import Iterator

from docmill.engine_table import ENGINES, Device
from docmill.formatting import counted, gb, gib
from docmill.insight.advice.tiers import Standing, standing_of
from docmill.insight.checkup.software import Import, Library, Software
from docmill.insight.findings import Finding, Status
from docmill.sizing.machine import Cpu, Disk, Machine, Memory

_GB = 10**9
_LEAST_DISK, _LITTLE_DISK = _GB, 10 * _GB
_LEAST_MEMORY, _LITTLE_MEMORY = 700 * 10**6, 2 * _GB  # free: the demo's model, and one that writes usable prose
_LEAST_FILES, _FEW_FILES = 128, 1024
_MACHINE, _SOFTWARE = "machine", "software"
_EXTRAS = {engine.libraries[0]: engine.extra for engine in ENGINES if engine.libraries}


def check_machine(machine: Machine) -> Iterator[Finding]:
    """Processor, memory, GPUs, disk, limits, and the tier they make."""
    yield check_cpu(machine.cpu)
    yield check_memory(machine.memory)
    yield from check_gpus(machine)
    if machine.disk is not None:
        yield check_disk(machine.disk)
    yield check_open_files(machine.open_files)
    yield check_tier(standing_of(machine))


def check_cpu(cpu: Cpu) -> Finding:
    """Warn where engines will crawl, or where a container leaves less than the machine has."""
    known = ", ".join(cpu.instructions) if cpu.instructions else "no vector instructions that engines use"
    shown = "" if cpu.instructions is None else f", {known}"
    what = f"{cpu.name}: {counted(cpu.physical, 'core')}, {counted(cpu.logical, 'thread')}{shown}"
    if cpu.instructions is not None and not {"AVX2", "NEON"} & set(cpu.instructions):
        advice = "without AVX2 the CPU engines are many times slower or do not start: use another machine, or a GPU"
        return Finding(_MACHINE, "processor", Status.WARN, what, advice)
    if cpu.usable < min(cpu.physical, cpu.logical):
        what = f"{what}; {cpu.usable} of them may be used here"
        advice = f"raise the container's limit, or leave optimization.threads at {cpu.usable} or less"
        return Finding(_MACHINE, "processor", Status.WARN, what, advice)
    return Finding(_MACHINE, "processor", Status.PASS, what)


def check_memory(memory: Memory) -> Finding:
    """By what is free: engines take the weights and a share of the rest when they start."""
    limit = "" if memory.limit_bytes is None else f" (the container's limit; the machine has {gib(memory.total_bytes)})"
    what = f"{gib(memory.free_bytes)} free of {gib(memory.usable_bytes)}{limit}"
    if memory.free_bytes < _LEAST_MEMORY:
        return Finding(_MACHINE, "memory", Status.FAIL, what, "not even the demo's model has room: end other programs")
    if memory.free_bytes < _LITTLE_MEMORY:
        advice = "only models of less than 1B parameters have room; end other programs for larger ones"
        return Finding(_MACHINE, "memory", Status.WARN, what, advice)
    return Finding(_MACHINE, "memory", Status.PASS, what)


def check_gpus(machine: Machine) -> Iterator[Finding]:
    """One finding a GPU; none is fine, one that cannot be read is not."""
    if not machine.gpus:
        if machine.has_gpu_device:
            advice = "pip install nvidia-ml-py; then `nvidia-smi` shows whether the driver works (docs/gpu.md)"
            yield Finding(
                _MACHINE, "GPU", Status.WARN, f"there is one, and it cannot be read: {machine.no_gpu}", advice
            )
        else:
            yield Finding(_MACHINE, "GPU", Status.PASS, "none: models run on the processor")
        return
    driver = f", driver {machine.driver}" if machine.driver else ""
    for gpu in machine.gpus:
        what = f"{gpu.name}: {gib(gpu.free_bytes)} free of {gib(gpu.total_bytes)}{driver}"
        if gpu.free_bytes < gpu.total_bytes / 2:
            advice = (
                "other programs hold more than half of it (`nvidia-smi` names them); a worker of docmill is one, too"
            )
            yield Finding(_MACHINE, f"GPU {gpu.index}", Status.WARN, what, advice)
        else:
            yield Finding(_MACHINE, f"GPU {gpu.index}", Status.PASS, what)


def check_disk(disk: Disk) -> Finding:
    """Room for models, the database and the caches under the home directory."""
    what = f"{gb(disk.free_bytes)} free of {gb(disk.total_bytes)} for {disk.path}"
    if not disk.is_writable:
        advice = "it cannot be written: choose another with --home or DOCMILL_HOME"
        return Finding(_MACHINE, "disk", Status.FAIL, what, advice)
    if disk.free_bytes < _LEAST_DISK:
        advice = "free some, or put the home elsewhere with --home or DOCMILL_HOME: a full disk stops every job"
        return Finding(_MACHINE, "disk", Status.FAIL, what, advice)
    if disk.free_bytes < _LITTLE_DISK:
        return Finding(_MACHINE, "disk", Status.WARN, what, "Basic asks for 10 GB: a model of 7B takes 4 to 5 of them")
    return Finding(_MACHINE, "disk", Status.PASS, what)


def check_open_files(limit: int) -> Finding:
    """Connections, logs and model files are open at once."""
    what = f"{limit:,} at once" if limit < 1 << 40 else "no limit"
    advice = "`ulimit -n 4096` before docmill starts, LimitNOFILE=4096 in a systemd unit"
    if limit < _LEAST_FILES:
        return Finding(_MACHINE, "open files", Status.FAIL, what, advice)
    return Finding(
        _MACHINE,
        "open files",
        Status.WARN if limit < _FEW_FILES else Status.PASS,
        what,
        advice if limit < _FEW_FILES else "",
    )


def check_tier(standing: Standing) -> Finding:
    """The tier, and what the next one would take."""
    parts = ", ".join(f"{part.name} {part.has}" for part in standing.parts)
    lacking = ", ".join(f"{part.name} {part.next_needs}" for part in standing.lacking)
    if standing.tier is None:
        advice = f"Basic asks for {lacking}; the demo and models of less than 2B parameters work all the same"
        return Finding(_MACHINE, "tier", Status.WARN, f"below Basic: {parts}", advice)
    more = f"; {standing.next_tier} would take {lacking}" if standing.next_tier else ""
    return Finding(_MACHINE, "tier", Status.PASS, f"{standing.tier}: {parts}{more}")


def check_software(software: Software, machine: Machine) -> Iterator[Finding]:
    """Versions, and the libraries of the engines."""
    shown = ", ".join(f"{name} {version}" for name, version in software.versions.items())
    yield Finding(_SOFTWARE, "versions", Status.PASS, f"docmill {software.docmill}, Python {software.python}, {shown}")
    for wanted, found in software.unmet:
        what = f"{wanted} is asked for, {found or 'none'} is installed"
        advice = f"pip install '{wanted}'"
        yield Finding(_SOFTWARE, "versions", Status.FAIL if not found else Status.WARN, what, advice)
    for library in software.libraries:
        yield check_library(library, has_gpu=bool(machine.gpus))
    yield check_an_engine(software, has_gpu=bool(machine.gpus))


def check_library(library: Library, *, has_gpu: bool) -> Finding:
    """A broken one warns; it fails where it is what the GPU is for. An absent one is nobody's fault."""
    detail = ", ".join(part for part in (library.version, library.detail) if part)
    if library.state is Import.WORKS:
        if library.name == "torch" and has_gpu and library.detail == "without CUDA":
            advice = "install torch for CUDA first (docs/gpu.md): this build does not see the GPU"
            return Finding(_SOFTWARE, library.name, Status.FAIL, f"imports: {detail}", advice)
        return Finding(_SOFTWARE, library.name, Status.PASS, f"imports: {detail}")
    is_for_gpu = any(library.name in engine.libraries for engine in ENGINES if engine.device is Device.GPU)
    if library.state is Import.ABSENT:
        return Finding(_SOFTWARE, library.name, Status.PASS, f"not installed{_purpose(library.name)}")
    status = Status.FAIL if is_for_gpu == has_gpu else Status.WARN
    advice = (
        "docs/gpu.md has the versions that go together"
        if is_for_gpu
        else "pip install --force-reinstall 'docmill[cpu]'"
    )
    if is_for_gpu and not has_gpu:
        advice = "of no use without a GPU: remove it, or leave it"
    return Finding(_SOFTWARE, library.name, status, f"does not import: {detail}", advice)


def check_an_engine(software: Software, *, has_gpu: bool) -> Finding:
    """At least one engine must be able to run a model here."""
    working = [engine for engine in ENGINES if engine.libraries and software.works(engine.libraries[0])]
    on_cpu = [engine.name for engine in working if engine.device is Device.CPU]
    on_gpu = [engine.name for engine in working if engine.device is Device.GPU and has_gpu]
    found = [*on_gpu, *on_cpu]
    if not found:
        advice = "pip install 'docmill[cpu]'; for a GPU, docs/gpu.md"
        return Finding(_SOFTWARE, "engines", Status.FAIL, "none can run a model here", advice)
    if has_gpu and not on_gpu:
        advice = "the GPU stands idle: docs/gpu.md takes it to a running worker"
        return Finding(_SOFTWARE, "engines", Status.WARN, f"{', '.join(found)}, and none for the GPU", advice)
    if on_gpu and not software.works("flash_attn"):
        advice = "pip install flash-attn (docs/gpu.md): without it exllamav2 runs one job at a time"
        return Finding(_SOFTWARE, "engines", Status.WARN, ", ".join(found), advice)
    return Finding(_SOFTWARE, "engines", Status.PASS, ", ".join(found))


def _purpose(library: str) -> str:
    if library in _EXTRAS:
        return f" (pip install 'docmill[{_EXTRAS[library]}]')"
    return " (wanted by exllamav2)"
