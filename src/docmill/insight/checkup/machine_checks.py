"""Checks of a machine and of the software on it. Pure functions: facts in, findings out."""

from __future__ import annotations

from collections.abc import Iterator

from docmill.engine_table import CPU_ENGINES, ENGINES, GPU_ENGINES
from docmill.formatting import counted, gb, gib
from docmill.insight.advice.tiers import Standing, standing_of
from docmill.insight.checkup.software_facts import Import, Library, Software
from docmill.insight.findings import Finding, Section
from docmill.sizing.machine import Cpu, Disk, Machine, Memory

_MACHINE, _SOFTWARE = Section("machine"), Section("software")
_GB = 10**9
_LEAST_DISK, _LITTLE_DISK = _GB, 10 * _GB
_LEAST_MEMORY, _LITTLE_MEMORY = 700 * 10**6, 2 * _GB  # free: for the demo's model, and for one that writes usable prose
_LEAST_FILES, _FEW_FILES = 128, 1024
_NO_LIMIT = 1 << 40
_EXTRAS = {engine.libraries[0]: engine.extra for engine in ENGINES if engine.libraries}


def check_machine(machine: Machine) -> Iterator[Finding]:
    """Processor, memory, GPUs, disk and limits, and the tier that results."""
    yield check_cpu(machine.cpu)
    yield check_memory(machine.memory)
    yield from check_gpus(machine)
    if machine.disk is not None:
        yield check_disk(machine.disk)
    yield check_open_files(machine.open_files)
    yield check_tier(standing_of(machine))


def check_cpu(cpu: Cpu) -> Finding:
    """Warns without AVX2 or NEON, and if a container may not use all cores."""
    what = f"{cpu.name}: {counted(cpu.physical, 'core')}, {counted(cpu.logical, 'thread')}"
    if cpu.instructions is not None:
        what += f", {', '.join(cpu.instructions) or 'no vector instructions that engines use'}"
        if not {"AVX2", "NEON"} & set(cpu.instructions):
            advice = "without AVX2, CPU engines are many times slower or do not start: use another machine, or a GPU"
            return _MACHINE.warning("processor", what, advice)
    if cpu.usable < min(cpu.physical, cpu.logical):
        advice = f"raise the container's limit, or keep optimization.threads at {cpu.usable} or less"
        return _MACHINE.warning("processor", f"{what}; only {cpu.usable} of them may be used here", advice)
    return _MACHINE.passed("processor", what)


def check_memory(memory: Memory) -> Finding:
    """By the free memory: when an engine starts, it allocates the weights and a share of the rest."""
    limit = "" if memory.limit_bytes is None else f" (the container's limit; the machine has {gib(memory.total_bytes)})"
    what = f"{gib(memory.free_bytes)} free of {gib(memory.usable_bytes)}{limit}"
    if memory.free_bytes < _LEAST_MEMORY:
        return _MACHINE.failure("memory", what, "too little even for the demo's model: stop other programs")
    advice = "only models of less than 1B parameters fit: stop other programs to use larger ones"
    return _MACHINE.judged("memory", what, is_bad=memory.free_bytes < _LITTLE_MEMORY, advice=advice)


def check_gpus(machine: Machine) -> Iterator[Finding]:
    """One finding per GPU. Passes without a GPU; warns about one that cannot be read."""
    if not machine.gpus:
        if machine.has_gpu_device:
            advice = "run pip install nvidia-ml-py, and see whether `nvidia-smi` finds the driver (docs/gpu.md)"
            yield _MACHINE.warning("GPU", f"there is a GPU, but it cannot be read: {machine.no_gpu}", advice)
        else:
            yield _MACHINE.passed("GPU", "none: models run on the processor")
    driver = f", driver {machine.driver}" if machine.driver else ""
    for gpu in machine.gpus:
        yield _MACHINE.judged(
            f"GPU {gpu.index}",
            f"{gpu.name}: {gib(gpu.free_bytes)} free of {gib(gpu.total_bytes)}{driver}",
            is_bad=gpu.free_bytes < gpu.total_bytes / 2,
            advice="other programs, perhaps another docmill worker, use more than half of it; `nvidia-smi` lists them",
        )


def check_disk(disk: Disk) -> Finding:
    """Space for models, the database and the caches in the home directory."""
    what = f"{gb(disk.free_bytes)} free of {gb(disk.total_bytes)} for {disk.path}"
    if not disk.is_writable:
        advice = "the directory is not writable: choose another with --home or DOCMILL_HOME"
        return _MACHINE.failure("disk", what, advice)
    if disk.free_bytes < _LEAST_DISK:
        advice = "a full disk stops every job: free some space, or move the home directory with --home or DOCMILL_HOME"
        return _MACHINE.failure("disk", what, advice)
    advice = "the Basic tier needs 10 GB: a 7B model takes 4 to 5 GB of it"
    return _MACHINE.judged("disk", what, is_bad=disk.free_bytes < _LITTLE_DISK, advice=advice)


def check_open_files(limit: int) -> Finding:
    """The limit on open files: docmill keeps connections, logs and model files open."""
    what = f"{limit:,} at once" if limit < _NO_LIMIT else "no limit"
    advice = "run `ulimit -n 4096` before docmill, or set LimitNOFILE=4096 in its systemd unit"
    if limit < _LEAST_FILES:
        return _MACHINE.failure("open files", what, advice)
    return _MACHINE.judged("open files", what, is_bad=limit < _FEW_FILES, advice=advice)


def check_tier(standing: Standing) -> Finding:
    """The tier, and what the next one needs."""
    parts = ", ".join(f"{part.name} {part.has}" for part in standing.parts)
    lacking = ", ".join(f"{part.name} {part.next_needs}" for part in standing.lacking)
    if standing.tier is None:
        advice = f"Basic needs {lacking}; the demo and models of less than 2B parameters still work"
        return _MACHINE.warning("tier", f"below Basic: {parts}", advice)
    more = f"; {standing.next_tier} needs {lacking}" if standing.next_tier else ""
    return _MACHINE.passed("tier", f"{standing.tier}: {parts}{more}")


def check_software(software: Software, machine: Machine) -> Iterator[Finding]:
    """Versions, and the libraries of the engines."""
    versions = ", ".join(f"{name} {version}" for name, version in software.versions.items())
    yield _SOFTWARE.passed("versions", f"docmill {software.docmill}, Python {software.python}, {versions}")
    for wanted, found in software.unmet:
        finding = _SOFTWARE.warning if found else _SOFTWARE.failure
        what = f"docmill needs {wanted}; installed is {found or 'none'}"
        yield finding("versions", what, f"run pip install '{wanted}'")
    for library in software.libraries:
        yield check_library(library, has_gpu=bool(machine.gpus))
    yield check_engines(software, has_gpu=bool(machine.gpus))


def check_library(library: Library, *, has_gpu: bool) -> Finding:
    """A library that does not import fails if this machine needs it and warns otherwise; a missing one passes."""
    name, detail = library.name, ", ".join(part for part in (library.version, library.detail) if part)
    is_for_gpu = any(name in engine.libraries for engine in ENGINES if engine.name in GPU_ENGINES)
    if library.state is Import.ABSENT:
        purpose = f"pip install 'docmill[{_EXTRAS[name]}]'" if name in _EXTRAS else "used by exllamav2"
        return _SOFTWARE.passed(name, f"not installed ({purpose})")
    if library.state is Import.WORKS:
        if name == "torch" and has_gpu and library.detail == "without CUDA":
            advice = "this build cannot use the GPU: install torch for CUDA first (docs/gpu.md)"
            return _SOFTWARE.failure(name, f"imports: {detail}", advice)
        return _SOFTWARE.passed(name, f"imports: {detail}")
    what = f"cannot be imported: {detail}"
    if is_for_gpu and not has_gpu:
        return _SOFTWARE.warning(name, what, "not needed without a GPU: uninstall or ignore it")
    if is_for_gpu:
        return _SOFTWARE.failure(name, what, "docs/gpu.md lists versions that work together")
    reinstall = "run pip install --force-reinstall 'docmill[cpu]'"
    return (_SOFTWARE.warning if has_gpu else _SOFTWARE.failure)(name, what, reinstall)


def check_engines(software: Software, *, has_gpu: bool) -> Finding:
    """At least one engine must be able to run a model here, and one of them on the GPU."""
    working = [engine.name for engine in ENGINES if engine.libraries and software.works(engine.libraries[0])]
    on_gpu = [name for name in working if name in GPU_ENGINES and has_gpu]
    usable = [*on_gpu, *(name for name in working if name in CPU_ENGINES)]
    names = ", ".join(usable)
    if not usable:
        advice = "run pip install 'docmill[cpu]'; for a GPU, see docs/gpu.md"
        return _SOFTWARE.failure("engines", "none can run a model here", advice)
    if has_gpu and not on_gpu:
        return _SOFTWARE.warning("engines", f"{names}, but none for the GPU", "the GPU is not used: see docs/gpu.md")
    advice = "run pip install flash-attn (docs/gpu.md): without it exllamav2 runs one job at a time"
    return _SOFTWARE.judged("engines", names, is_bad=bool(on_gpu) and not software.works("flash_attn"), advice=advice)
