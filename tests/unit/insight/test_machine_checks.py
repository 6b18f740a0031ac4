"""Each check on made-up facts: when it passes, warns and fails, and its advice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from docmill.insight.checkup.machine_checks import (
    check_cpu,
    check_disk,
    check_engines,
    check_gpus,
    check_library,
    check_machine,
    check_memory,
    check_open_files,
    check_software,
)
from docmill.insight.checkup.software_facts import Import, Library, Software
from docmill.insight.findings import Finding, Status, worst
from docmill.sizing.machine import Cpu, Disk, Memory
from tests.unit.insight.machines import GB, GIB, machine

PASS, WARN, FAIL = Status.PASS, Status.WARN, Status.FAIL


def software(*working: str, broken: tuple[str, ...] = (), unmet: tuple[tuple[str, str], ...] = ()) -> Software:
    libraries = [Library(name, Import.WORKS, "1.0") for name in working]
    libraries += [Library(name, Import.BROKEN, "1.0", "OSError: no") for name in broken]
    return Software("3.11", "0.1", {"celery": "5.7"}, unmet, tuple(libraries))


def test_a_good_machine_passes_every_check_without_advice() -> None:
    findings = list(check_machine(machine(16, 64, vram=(24,))))
    assert {finding.status for finding in findings} == {PASS}
    assert not any(finding.advice for finding in findings)


@pytest.mark.parametrize(
    ("cpu", "status", "said"),
    [
        (Cpu("p", 8, 16, 16, ("AVX2",)), PASS, "8 cores, 16 threads, AVX2"),
        (Cpu("p", 8, 16, 16, None), PASS, "8 cores, 16 threads"),
        (Cpu("p", 8, 16, 16, ("NEON",)), PASS, "NEON"),
        (Cpu("p", 8, 16, 16, ()), WARN, "no vector instructions"),
        (Cpu("p", 8, 16, 2, ("AVX2",)), WARN, "2 of them may be used here"),
    ],
)
def test_a_processor_without_avx2_or_limited_by_a_container_warns(cpu: Cpu, status: Status, said: str) -> None:
    finding = check_cpu(cpu)
    assert (finding.status, said in finding.what) == (status, True)


@pytest.mark.parametrize(("free", "status"), [(0.5, FAIL), (1.5, WARN), (4.0, PASS)])
def test_memory_is_judged_by_what_is_free(free: float, status: Status) -> None:
    assert check_memory(Memory(16 * GIB, int(free * GIB))).status is status


def test_a_containers_memory_limit_is_shown_with_the_machines_memory() -> None:
    assert "(the container's limit; the machine has 64 GiB)" in check_memory(Memory(64 * GIB, 4 * GIB, 8 * GIB)).what


def test_no_gpu_passes_but_an_unreadable_gpu_warns() -> None:
    none = machine()
    assert [finding.status for finding in check_gpus(none)] == [PASS]
    (unread,) = check_gpus(replace(none, has_gpu_device=True, no_gpu="no nvidia-ml-py"))
    assert (unread.status, "nvidia-ml-py" in unread.advice) == (WARN, True)


def test_each_gpu_is_checked_and_one_in_use_by_others_warns() -> None:
    findings = list(check_gpus(machine(vram=(24, 24))))
    assert [finding.check for finding in findings] == ["GPU 0", "GPU 1"]
    assert "driver 570.1" in findings[0].what
    assert [finding.status for finding in check_gpus(machine(vram=(24,), free_vram=4))] == [WARN]


@pytest.mark.parametrize(("free", "status"), [(0.5, FAIL), (5, WARN), (50, PASS)])
def test_a_nearly_full_disk_warns_and_a_full_one_fails(free: float, status: Status) -> None:
    assert check_disk(Disk("/h", 100 * GB, int(free * GB), "ext4", is_writable=True)).status is status


def test_a_home_that_is_not_writable_fails_and_names_the_option_for_another() -> None:
    finding = check_disk(Disk("/h", 100 * GB, 50 * GB, "ext4", is_writable=False))
    assert (finding.status, "--home" in finding.advice) == (FAIL, True)


@pytest.mark.parametrize(("limit", "status"), [(64, FAIL), (256, WARN), (1024, PASS), (2**63 - 1, PASS)])
def test_a_low_limit_on_open_files_warns(limit: int, status: Status) -> None:
    finding = check_open_files(limit)
    assert (finding.status, bool(finding.advice)) == (status, status is not PASS)


def test_below_basic_the_tier_warns_and_says_what_still_works() -> None:
    tier = next(finding for finding in check_machine(machine(2, 4)) if finding.check == "tier")
    assert tier.status is WARN
    assert "Basic needs CPU cores 4, memory 8 GB; the demo and models of less than 2B" in tier.advice


def test_an_unmet_requirement_warns_and_a_missing_package_fails() -> None:
    found = software("xllamacpp", unmet=(("kombu>=5.7", "5.4"), ("redis~=8.1", "")))
    versions = [finding for finding in check_software(found, machine()) if finding.check == "versions"]
    assert [finding.status for finding in versions] == [PASS, WARN, FAIL]
    assert versions[1].advice == "run pip install 'kombu>=5.7'"


@pytest.mark.parametrize(
    ("library", "has_gpu", "status"),
    [
        (Library("openvino_genai", Import.WORKS, "1"), False, PASS),
        (Library("openvino_genai", Import.BROKEN, "1", "x"), False, FAIL),
        (Library("openvino_genai", Import.BROKEN, "1", "x"), True, WARN),
        (Library("exllamav2", Import.BROKEN, "1", "x"), False, WARN),
        (Library("exllamav2", Import.BROKEN, "1", "x"), True, FAIL),
        (Library("exllamav2", Import.ABSENT), True, PASS),
        (Library("torch", Import.WORKS, "2", "without CUDA"), False, PASS),
        (Library("torch", Import.WORKS, "2", "without CUDA"), True, FAIL),
        (Library("torch", Import.WORKS, "2", "CUDA 12.8"), True, PASS),
    ],
)
def test_a_library_fails_where_the_machine_needs_it(library: Library, has_gpu: bool, status: Status) -> None:
    assert check_library(library, has_gpu=has_gpu).status is status


@pytest.mark.parametrize(
    ("found", "has_gpu", "status", "said"),
    [
        (software(), False, FAIL, "docmill[cpu]"),
        (software("exllamav2"), False, FAIL, "docmill[cpu]"),
        (software("xllamacpp"), False, PASS, ""),
        (software("xllamacpp"), True, WARN, "the GPU is not used"),
        (software("exllamav2"), True, WARN, "flash-attn"),
        (software("exllamav2", "flash_attn"), True, PASS, ""),
    ],
)
def test_no_engine_fails_and_a_gpu_without_an_engine_warns(
    found: Software, has_gpu: bool, status: Status, said: str
) -> None:
    finding = check_engines(found, has_gpu=has_gpu)
    assert (finding.status, said in finding.advice) == (status, True)


def test_the_worst_status_of_all_findings_counts() -> None:
    of = {status: Finding("s", "c", status, "w") for status in Status}
    assert worst([]) is PASS
    assert worst([of[PASS], of[FAIL], of[WARN]]) is FAIL
    assert worst([of[WARN], of[PASS]]) is WARN
