"""Plans against manual calculations; and their advice must work when it is followed."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from docmill.sizing.gpu_devices import Gpu, NoGpu, read_gpus, visible
from docmill.sizing.gpu_memory import PAGE_TOKENS, CacheType, scratch_bytes
from docmill.sizing.gpu_plan import Change, plan_gpu
from docmill.sizing.model_shape import ModelShape, read_model_shape
from tests.model_directories import write_exl2

GIB = 1 << 30
MIB = 1 << 20


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> ModelShape:
    """An invented 7B at 4.65 bits per weight: 32 layers, 8 of 32 heads with keys, 128 wide, vocabulary of 32,768."""
    return read_model_shape(write_exl2(tmp_path_factory.mktemp("m")))


@pytest.mark.parametrize(
    ("cache_type", "factor", "once"),
    [(CacheType.FP16, 4.0, 0), (CacheType.Q8, 2.125, 4), (CacheType.Q6, 1.625, 4), (CacheType.Q4, 1.125, 4)],
)
def test_plan_on_24_gib_agrees_with_hand_arithmetic(
    shape: ModelShape, cache_type: CacheType, factor: float, once: int
) -> None:
    weights = (32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336) + 4096 * 32768) * 4.65 / 8 + 65 * 8192
    reserve = (192 + 256 + 400) * MIB
    scratch = 2 * 4096 * 32768  # the head, unpacked to fp16: more than the MLP's 251,658,624
    tables = 2 * 2 * 128 * 8192
    activations = 2048 * (2 * 2 * 4096 + 2 * 128 * (2 * 32 + 2 * 8))
    per_token = factor * 32 * 8 * 128
    left = 24 * GIB - reserve - weights - scratch - tables - activations
    plan = plan_gpu(shape, [24 * GIB], window=8192, cache_type=cache_type, slots_wanted=4)
    assert plan.cache_bytes_per_token == per_token
    assert plan.unpacked_bytes_per_token == once * 8 * 128
    assert plan.most_cache_tokens == left // (per_token + once * 8 * 128) // 256 * 256
    assert plan.slots == 4
    assert plan.cache_tokens == 5 * 8192
    assert (plan.max_input_len, plan.fits, plan.missing_bytes, plan.advice) == (2048, True, 0, ())
    assert plan.devices[0].reserve_bytes == reserve
    assert plan.devices[0].cache_bytes == 5 * 8192 * (per_token + once * 8 * 128)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 268_435_456),
        ({"vocab": 128_257}, 1_050_935_296),
        (
            {
                "hidden": 2048, "intermediate": 768, "experts": 8, "heads": 32, "kv_heads": 4,
                "head_dim": 128, "vocab": 151_936,
            },
            622_329_856,
        ),
        ({"vocab": 1000}, 1024 * 2 * (4096 + 2 * 14336) + 384 + 2 * 4096 * 14336),
    ],
)  # fmt: skip
def test_scratch_is_what_exllamav2_computes(shape: ModelShape, changes: dict[str, int], expected: int) -> None:
    # The first three: max(module.scratch_space_fixed()) of exllamav2 0.3.2 for max_input_len 1024.
    changed = replace(shape, dimensions=replace(shape.dimensions, **changes))  # type: ignore[arg-type]
    assert scratch_bytes(changed, 1024) == expected


@pytest.mark.parametrize("vram_gib", [5, 6, 12, 80])
@pytest.mark.parametrize("cache_type", CacheType)
def test_most_cache_is_whole_pages_and_not_one_page_more_fits(
    shape: ModelShape, vram_gib: int, cache_type: CacheType
) -> None:
    plan = plan_gpu(shape, [vram_gib * GIB], 4096, cache_type, slots_wanted=1000)
    page = PAGE_TOKENS * (plan.cache_bytes_per_token + plan.unpacked_bytes_per_token)
    assert plan.most_cache_tokens % PAGE_TOKENS == 0
    assert plan.slots == plan.most_cache_tokens // 4096
    if plan.fits:
        device = plan.devices[0]
        unused = plan.most_cache_tokens - plan.cache_tokens
        assert 0 <= device.free_bytes - unused // PAGE_TOKENS * page < page
        assert device.used_bytes + device.free_bytes == vram_gib * GIB


def test_smaller_cache_types_hold_more_tokens(shape: ModelShape) -> None:
    most = [plan_gpu(shape, [12 * GIB], 8192, cache_type).most_cache_tokens for cache_type in CacheType]
    assert all(more > fewer for fewer, more in pairwise(most))


def test_a_split_fills_the_first_gpu_and_leaves_nothing_out(shape: ModelShape) -> None:
    sizes = (4 * GIB, 6 * GIB)
    assert not plan_gpu(shape, sizes[:1], 8192).fits
    plan = plan_gpu(shape, sizes, 8192, slots_wanted=1)
    first, second = plan.devices
    assert plan.fits
    assert sum(device.layers for device in plan.devices) == 32
    assert sum(device.weights_bytes for device in plan.devices) == shape.weights_bytes
    assert min(first.free_bytes, second.free_bytes) >= 0
    layer = shape.attention_bytes[0] + plan.cache_tokens * plan.cache_bytes_per_token // 32
    assert first.free_bytes < max(layer, shape.mlp_bytes[0])
    assert (first.reserve_bytes, second.reserve_bytes) == (848 * MIB, 720 * MIB)


def test_a_quantized_cache_is_unpacked_once_on_every_gpu(shape: ModelShape) -> None:
    attention, mlp = shape.attention_bytes[0], shape.mlp_bytes[0]
    for first_mib in range(3000, 4600, 25):
        plan = plan_gpu(shape, (first_mib * MIB, 6 * GIB), 16_384, CacheType.Q4, slots_wanted=1)
        layer_cache = plan.cache_tokens * 9 * 8 * 128 // 8
        for device in plan.devices:
            assert device.cache_bytes == device.layers * layer_cache + plan.cache_tokens * 4 * 8 * 128
        first = plan.devices[0]
        comes_next = attention + layer_cache if first.weights_bytes == first.layers * (attention + mlp) else mlp
        assert 0 <= first.free_bytes < comes_next


def test_prompts_are_read_in_smaller_chunks_if_only_those_fit(shape: ModelShape) -> None:
    chunks = {
        plan.max_input_len
        for mib in range(5 * 1024, 7 * 1024, 16)
        if (plan := plan_gpu(shape, [mib * MIB], 8192, slots_wanted=1)).fits
    }
    assert chunks == {2048, 1024, 512}


def test_window_is_no_longer_than_the_models_and_short_ones_are_read_in_one_chunk(shape: ModelShape) -> None:
    assert plan_gpu(shape, [24 * GIB], 100_000).window == 32_768
    short = plan_gpu(shape, [24 * GIB], 300, slots_wanted=3)
    assert (short.window, short.max_input_len, short.cache_tokens) == (300, 512, 4 * 512)


@pytest.mark.parametrize("vram_gib", [3, 4, 5, 8, 12])
@pytest.mark.parametrize("cache_type", [CacheType.FP16, CacheType.Q4])
@pytest.mark.parametrize("window", [4096, 32_768])
def test_every_advice_holds_when_it_is_done(
    shape: ModelShape, vram_gib: int, cache_type: CacheType, window: int
) -> None:
    plan = plan_gpu(shape, [vram_gib * GIB], window, cache_type, slots_wanted=8)
    assert plan.slots == 8 or plan.advice
    for advice in plan.advice:
        there = advice.plan
        sizes = [device.vram_bytes for device in there.devices]
        if advice.change is Change.WEIGHTS:
            assert there.weights_bytes < plan.weights_bytes
            assert all(device.free_bytes >= 0 for device in there.devices)
        else:
            again = plan_gpu(shape, sizes, there.window, there.cache_type, slots_wanted=8)
            assert replace(again, advice=()) == there
        assert there.slots > plan.slots
        assert f": {there.slots} job" in advice.sentence


def test_what_costs_least_is_advised_first(shape: ModelShape) -> None:
    plan = plan_gpu(shape, [6 * GIB], 8192, slots_wanted=16)
    changes = [advice.change for advice in plan.advice]
    assert changes == sorted(changes, key=list(Change).index)
    assert {Change.CACHE_TYPE, Change.WINDOW, Change.SPLIT, Change.WEIGHTS, Change.GPU} <= set(changes)


def test_what_is_missing_is_exactly_what_one_job_needs(shape: ModelShape) -> None:
    plan = plan_gpu(shape, [4 * GIB], 8192, slots_wanted=1)
    assert (plan.fits, plan.slots, plan.cache_tokens) == (False, 0, 0)
    assert plan_gpu(shape, [4 * GIB + plan.missing_bytes], 8192).fits
    assert not plan_gpu(shape, [4 * GIB + plan.missing_bytes - MIB], 8192).fits


def test_advised_gpu_is_enough_and_hardly_more_than_enough(shape: ModelShape) -> None:
    plan = plan_gpu(shape, [4 * GIB], 8192, slots_wanted=16)
    enough = plan.advice[-1]
    assert (enough.change, enough.plan.slots) == (Change.GPU, 16)
    size = enough.plan.devices[0].vram_bytes
    assert plan_gpu(shape, [size - 2 * MIB], 8192, slots_wanted=16).slots == 15


def test_a_plan_needs_a_gpu(shape: ModelShape) -> None:
    with pytest.raises(ValueError, match="needs a GPU"):
        plan_gpu(shape, [], 8192)


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [(None, CacheType.FP16), ("fp16", CacheType.FP16), ("int8", CacheType.Q8), ("int6", CacheType.Q6), ("int4", "q4")],
)
def test_cache_type_follows_the_configured_quantization(quantization: str | None, expected: str) -> None:
    assert CacheType.from_quantization(quantization) == expected


def test_an_unknown_quantization_is_refused() -> None:
    with pytest.raises(ValueError, match="q3"):
        CacheType.from_quantization("int3")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (None, [0, 1, 2]),
        ("2,0", [2, 0]),
        ("GPU-b", [1]),
        ("1,7,2", [1]),  # as CUDA: what follows an unknown one is ignored
        ("-1", []),
        ("", []),
        ("GPU-", []),
    ],
)
def test_cuda_visible_devices_chooses_and_orders_gpus(wanted: str | None, expected: list[int]) -> None:
    gpus = [Gpu(i, f"GPU-{name}", "NVIDIA", GIB, GIB) for i, name in enumerate("abc")]
    assert [gpu.index for gpu in visible(gpus, wanted)] == expected


def test_without_a_gpu_it_is_said_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(NoGpu, match=r"nvidia-ml-py|no NVIDIA GPU|CUDA_VISIBLE_DEVICES"):
        read_gpus()
