"""The facts of this machine, and of control groups in the format of Linux."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from docmill.sizing.machine import cpu_quota, filesystem_of, hypothetical, memory_limit, memory_used, read_machine
from tests.exllamav2_cpu.child import SITE
from tests.unit.insight.machines import GIB, machine


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stand-in for the driver's library, with two GPUs."""
    monkeypatch.syspath_prepend(str(SITE))
    monkeypatch.setenv("DOCMILL_TEST_GPUS", "2")
    monkeypatch.setenv("DOCMILL_TEST_VRAM_BYTES", f"{12 * GIB},{24 * GIB}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    yield
    sys.modules.pop("pynvml", None)


def test_this_machine_is_read_as_the_system_tells_of_it(tmp_path: Path) -> None:
    found = read_machine(tmp_path / "not" / "made" / "yet")
    assert found.cpu.logical == psutil.cpu_count()
    assert 1 <= found.cpu.usable <= found.cpu.logical
    assert found.memory.total_bytes == psutil.virtual_memory().total
    assert 0 < found.memory.free_bytes <= found.memory.usable_bytes <= found.memory.total_bytes
    assert found.disk is not None
    assert found.disk.total_bytes == shutil.disk_usage(tmp_path).total
    assert found.disk.is_writable
    assert not (tmp_path / "not").exists()


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="Linux tells of instructions there")
def test_the_instructions_are_those_of_cpuinfo(tmp_path: Path) -> None:
    flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    instructions = read_machine(tmp_path).cpu.instructions
    assert instructions is not None
    assert ("AVX2" in instructions) == ("avx2" in flags)
    assert ("AMX" in instructions) == ("amx_tile" in flags)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_only_the_processors_this_process_may_use_count(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert read_machine(tmp_path).cpu.engine_threads == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.usefixtures("two_gpus")
def test_gpus_and_their_driver_are_read(tmp_path: Path) -> None:
    found = read_machine(tmp_path)
    assert [gpu.total_bytes for gpu in found.gpus] == [12 * GIB, 24 * GIB]
    assert (found.driver, found.vram_bytes, found.no_gpu) == ("570.00", 24 * GIB, "")


def test_a_read_only_home_is_reported(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    disk = read_machine(home).disk
    assert disk is not None
    assert disk.is_writable == os.access(home, os.W_OK)  # root may write everywhere


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        ({"memory.max": "max"}, {"memory.max": "8589934592\n"}, 8 * GIB),
        ({"memory.max": "4294967296"}, {"memory.max": "8589934592"}, 4 * GIB),
        ({"memory.max": "max"}, {}, None),
        ({"memory.limit_in_bytes": "9223372036854771712"}, {"memory.limit_in_bytes": "2147483648"}, 2 * GIB),
        ({}, {}, None),
    ],
)
def test_the_smallest_memory_limit_of_all_groups_holds(
    tmp_path: Path, inner: dict[str, str], outer: dict[str, str], expected: int | None
) -> None:
    assert memory_limit(groups(tmp_path, inner, outer)) == expected


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        ({"cpu.max": "max 100000"}, {"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "400000 100000"}, {"cpu.max": "200000 100000"}, 2.0),
        ({"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, {}, None),
        ({"cpu.cfs_quota_us": "300000", "cpu.cfs_period_us": "100000"}, {}, 3.0),
    ],
)
def test_the_smallest_quota_of_all_groups_holds(
    tmp_path: Path, inner: dict[str, str], outer: dict[str, str], expected: float | None
) -> None:
    assert cpu_quota(groups(tmp_path, inner, outer)) == expected


def test_the_innermost_group_tells_what_is_used(tmp_path: Path) -> None:
    assert memory_used(groups(tmp_path, {"memory.current": "5"}, {"memory.current": "9"})) == 5


def groups(place: Path, inner: dict[str, str], outer: dict[str, str]) -> list[Path]:
    """Two nested control groups, as directories of files."""
    directories = [place / "outer" / "inner", place / "outer"]
    for directory, files in zip(directories, (inner, outer), strict=True):
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (directory / name).write_text(text)
    return directories


def test_a_file_system_is_named_by_the_mount_nearest_to_the_path() -> None:
    by_mount = {partition.mountpoint: partition.fstype.lower() for partition in psutil.disk_partitions(all=True)}
    for place in ("/proc", "/dev/shm"):
        if place in by_mount:
            assert filesystem_of(Path(place) / "not-there") == by_mount[place]


def test_a_pretended_machine_has_the_named_parts_and_keeps_the_others() -> None:
    found = hypothetical(machine(4, 8, vram=(6,)), cores=32, vram_bytes=(24 * GIB, 24 * GIB))
    assert (found.cpu.engine_threads, found.memory.total_bytes, len(found.gpus)) == (32, 8 * GIB, 2)
    assert (found.is_pretended, found.disk) == (True, None)
    assert hypothetical(machine(4, 8, vram=(6,)), vram_bytes=(0,)).gpus == ()
