"""The computed sizes of a plan against the tensors of the real exllamav2 0.3.2, on the CPU stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from docmill.catalogue.local_model import Model
from docmill.sizing.gpu_memory import CacheType, scratch_bytes
from docmill.sizing.gpu_plan import plan_gpu
from docmill.sizing.model_shape import read_model_shape
from tests.exllamav2_cpu.child import Child
from tests.exllamav2_cpu.installed import require_exllamav2
from tests.exllamav2_cpu.models import ARCHITECTURES, tiny_model
from tests.unit.sizing.real_memory import measure

CHUNKS = (512, 16_384)  # the head needs the most scratch, the feed forward
WINDOW, TOKENS = 1024, 256
BITS = {16: CacheType.FP16, 8: CacheType.Q8, 6: CacheType.Q6, 4: CacheType.Q4}


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    require_exllamav2()
    child = Child()
    yield child
    child.close()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_plan_counts_what_the_real_package_allocates(
    architecture: str, child: Child, demo_model: Model, tmp_path: Path
) -> None:
    directory = tiny_model(tmp_path, demo_model.path, architecture)
    shape = read_model_shape(directory)
    small, large = (child.run(measure, directory, chunk, WINDOW, TOKENS) for chunk in CHUNKS)
    plan = plan_gpu(shape, [8 << 30], WINDOW, slots_wanted=1)
    assert [scratch_bytes(shape, chunk) for chunk in CHUNKS] == [small.scratch, large.scratch]
    assert small.scratch < large.scratch
    assert plan.devices[0].tables_bytes == small.tables
    assert shape.weights_bytes == pytest.approx(small.weights, rel=0.001)
    for bits, cache_type in BITS.items():
        assert TOKENS * shape.layers * cache_type.layer_bytes(shape) == small.caches[bits]
        assert TOKENS * cache_type.unpacked_bytes(shape) == small.unpacked[bits]
