"""Fake GPUs: their memory is counted and runs out, and faults come where the environment puts them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.exllamav2_cpu import scenarios
from tests.exllamav2_cpu.child import Child

MIB = 1 << 20
RESERVED = (192 + 256) * MIB  # what load_autosplit sets aside on the first GPU while it loads


@pytest.fixture(scope="module")
def three() -> Iterator[Child]:
    """The second and first of three GPUs, in this order; room for the layers, not for the head, on the first."""
    child = Child(
        DOCMILL_TEST_GPUS="3",
        DOCMILL_TEST_VRAM_BYTES=f"{1024 * MIB},{RESERVED + 3 * MIB}",
        CUDA_VISIBLE_DEVICES="1,0",
    )
    yield child
    child.close()


def test_visible_gpus_are_those_the_environment_names_in_its_order(three: Child) -> None:
    assert three.run(scenarios.gpus) == [
        ("CPU stand-in 1", RESERVED + 3 * MIB),
        ("CPU stand-in 0", 1024 * MIB),
    ]


def test_model_too_large_for_one_gpu_is_spread_over_two(three: Child, child: Child, llama: Path) -> None:
    devices, allocated, texts = three.run(scenarios.spread, llama)
    assert devices == {"embed_tokens": -1, "first layer": 0, "lm_head": 1}
    assert all(count > 0 for count in allocated)
    assert texts == child.run(scenarios.texts, llama)


def test_cache_that_fits_nowhere_is_refused_and_its_memory_given_back(three: Child, llama: Path) -> None:
    message, left_over = three.run(scenarios.load_too_large_a_cache, llama)
    assert message == "Insufficient VRAM for model and cache"
    assert left_over == [0, 0]


def test_allocated_memory_is_that_of_weights_and_cache(child: Child, llama: Path) -> None:
    counted, weights_and_cache = child.run(scenarios.allocated_by_loading, llama)
    assert weights_and_cache <= counted < weights_and_cache * 1.05


def test_memory_runs_out_at_the_named_step_and_the_generator_can_go_on(child: Child, llama: Path) -> None:
    error, iterations, after = child.run(scenarios.fault, llama, "DOCMILL_TEST_OOM_AT_STEP", 4)
    assert error == "OutOfMemoryError"
    assert iterations == 2  # the first made two forward passes: the prompt and a token
    assert after == child.run(scenarios.texts, llama)


def test_fault_that_comes_once_stays_away_from_the_next_process(child: Child, llama: Path, tmp_path: Path) -> None:
    mark = tmp_path / "has happened"
    error, _, _ = child.run(scenarios.fault, llama, "DOCMILL_TEST_CUDA_ERROR_AT_STEP", 2, mark)
    assert error == "RuntimeError"
    assert mark.exists()
    assert child.run(scenarios.fault, llama, "DOCMILL_TEST_CUDA_ERROR_AT_STEP", 2, mark)[0] is None
