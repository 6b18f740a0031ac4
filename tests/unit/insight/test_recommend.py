"""The tree's answers, what fits by the arithmetic, and config files that load."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from docmill.catalogue.known_models import ENTRIES, find_entry
from docmill.catalogue.model_entry import Tier
from docmill.insight.advice.config_text import config_text
from docmill.insight.advice.recommend import UseCase, recommend
from docmill.insight.advice.tiers import standing_of
from docmill.settings.load import load_settings
from docmill.sizing.catalogue_fit import Place, fit
from docmill.sizing.machine import Machine
from docmill.sizing.model_memory import openvino_can_run
from tests.unit.insight.machines import GIB, machine

recommended = cache(recommend)
TINY, BASIC = machine(2, 4), machine(4, 8)
STANDARD, ADVANCED = machine(8, 16, vram=(6,)), machine(16, 64, vram=(24,))
RACK = machine(32, 128, vram=(24, 24))


@pytest.mark.parametrize(
    ("found", "tier"),
    [
        (TINY, None),
        (machine(2, 64, vram=(24,)), None),
        (BASIC, Tier.BASIC),
        (machine(4, 7.5), Tier.BASIC),  # firmware and kernel keep some of 8 GB
        (machine(4, 7.0), None),
        (machine(16, 64), Tier.BASIC),  # no GPU
        (machine(4, 16, vram=(6,)), Tier.STANDARD),
        (STANDARD, Tier.STANDARD),
        (machine(8, 64, vram=(24,)), Tier.STANDARD),
        (machine(16, 32, vram=(12,)), Tier.ADVANCED),
        (machine(16, 32, vram=(12,), disk=30), Tier.STANDARD),
        (machine(16, 32, vram=(12,), disk=5), None),
        (machine(16, 32, vram=(12,), disk=None), Tier.ADVANCED),
    ],
)
def test_a_machine_is_of_the_tier_of_its_weakest_part(found: Machine, tier: Tier | None) -> None:
    assert standing_of(found).tier is tier


def test_a_standing_names_what_the_next_tier_would_take() -> None:
    standing = standing_of(machine(8, 64, vram=(24,)))
    assert [(part.name, part.next_needs) for part in standing.lacking] == [("CPU cores", "16")]
    assert standing_of(ADVANCED).next_tier is None


@pytest.mark.parametrize(
    ("found", "use_case", "model"),
    [
        *((TINY, use_case, "smollm2-135m-instruct") for use_case in UseCase),
        *((BASIC, use_case, "phi-2") for use_case in UseCase),
        (STANDARD, UseCase.EDUCATION, "orca-2-7b"),
        (STANDARD, UseCase.GENERAL, "mistral-7b-instruct-v0.3"),
        (STANDARD, UseCase.MATH, "phi-3-mini-4k-instruct"),
        (STANDARD, UseCase.RESEARCH, "llama-2-7b-chat"),
        *((ADVANCED, use_case, "llama-2-13b-chat") for use_case in UseCase),
        *((RACK, use_case, "llama-2-70b-chat") for use_case in UseCase),
    ],
)
def test_the_tree_is_followed(found: Machine, use_case: UseCase, model: str) -> None:
    recommendation = recommended(found, use_case)
    assert recommendation.first.entry.name == model
    assert recommendation.first.fit.fits


def test_the_tables_model_for_a_use_is_the_first_alternative_if_the_tree_has_no_branch_for_it() -> None:
    assert recommended(ADVANCED, UseCase.EDUCATION).alternatives[0].entry.name == "orca-2-13b"
    assert recommended(ADVANCED, UseCase.MATH).alternatives[0].entry.name == "phi-3.5-moe-instruct"


@pytest.mark.parametrize("found", [BASIC, STANDARD, ADVANCED, RACK], ids=["basic", "standard", "advanced", "rack"])
@pytest.mark.parametrize("use_case", UseCase)
def test_newer_models_are_alternatives_with_a_reason_on_the_same_device_as_the_first(
    found: Machine, use_case: UseCase
) -> None:
    recommendation = recommended(found, use_case)
    newer = [c for c in recommendation.alternatives if c.entry.published > recommendation.first.entry.published]
    assert newer
    for choice in newer:
        assert f"newer ({choice.entry.published} against" in choice.why or "the guide's" in choice.why
        assert choice.fit.fits
        assert choice.fit.place is recommendation.first.fit.place or "the guide's" in choice.why


def test_every_model_of_the_catalogue_has_a_date() -> None:
    assert [entry.name for entry in ENTRIES if not entry.published] == []


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
@pytest.mark.parametrize("found", [BASIC, STANDARD], ids=["basic", "standard"])
def test_what_fits_stays_within_the_memory_and_what_does_not_says_what_is_missing(
    entry: object, found: Machine
) -> None:
    fitted = fit(entry, found, 8192)  # type: ignore[arg-type]
    assert (fitted.needed_bytes <= fitted.available_bytes) == fitted.fits
    assert (fitted.missing_bytes > 0) != fitted.fits


def test_more_memory_never_gives_less() -> None:
    mistral = find_entry("mistral-7b")
    assert mistral is not None
    in_memory = [fit(mistral, machine(8, size), 8192) for size in (4, 6, 8, 12, 16, 32)]
    assert [fitted.fits for fitted in in_memory] == [False, True, True, True, True, True]
    tokens = [fitted.slots * fitted.window for fitted in in_memory]
    assert tokens == sorted(tokens)
    on_gpu = [fit(mistral, machine(8, 8, vram=(size,)), 8192) for size in (6, 8, 12, 24)]
    assert {fitted.place for fitted in on_gpu} == {Place.GPU}
    tokens = [fitted.slots * fitted.window for fitted in on_gpu]
    assert tokens == sorted(tokens)


def test_a_model_too_large_for_the_gpu_runs_in_memory_and_says_so() -> None:
    mistral = find_entry("mistral-7b")
    assert mistral is not None
    assert fit(mistral, machine(8, 32, vram=(4,)), 8192).place is Place.MEMORY
    with_small_gpu = machine(16, 64, vram=(12,))
    moe = fit(next(entry for entry in ENTRIES if entry.name == "phi-3.5-moe-instruct"), with_small_gpu, 8192)
    assert (moe.place, moe.engine, moe.fits) == (Place.MEMORY, "llamacpp", True)


def test_several_gpus_share_a_model_that_one_has_no_room_for_and_the_remark_says_how_to_start_it() -> None:
    recommendation = recommended(RACK, UseCase.GENERAL)
    assert recommendation.first.fit.gpus == 2
    assert any("docmill worker --gpu-split 22,22" in remark for remark in recommendation.remarks)


@pytest.mark.parametrize(
    "found",
    [TINY, BASIC, machine(4, 64), STANDARD, machine(16, 32, vram=(12,)), ADVANCED, RACK, machine(1, 1)],
    ids=lambda found: f"{found.cpu.physical}-{found.memory.total_bytes // GIB}-{len(found.gpus)}",
)
@pytest.mark.parametrize("use_case", UseCase)
def test_every_recommended_config_loads_and_holds_what_was_recommended(
    tmp_path: Path, found: Machine, use_case: UseCase
) -> None:
    recommendation = recommended(found, use_case)
    path = tmp_path / "config.yaml"
    path.write_text(config_text(recommendation, "a machine"))
    settings = load_settings(path, {}, {})
    first = recommendation.first
    profile = settings.profile()
    assert (profile.model, profile.context_window) == (first.fit.model, first.fit.window)
    assert (profile.optimization.batch_size, profile.optimization.threads) == (
        max(1, first.fit.slots),
        first.fit.threads,
    )
    assert profile.optimization.cuda_layers == ("all" if first.fit.place is Place.GPU else None)
    assert profile.temperature is None  # left to the task
    assert ("other_llm" in settings.profiles) == bool(recommendation.alternatives)
    small = openvino_can_run(first.entry)
    assert (settings.worker.engine == "llamacpp") == (small and first.fit.engine == "llamacpp")


def test_the_commented_temperature_may_be_switched_on(tmp_path: Path) -> None:
    text = config_text(recommended(STANDARD, UseCase.MATH), "a machine")
    path = tmp_path / "config.yaml"
    path.write_text(text.replace("# temperature: focused", "temperature: focused"))
    assert load_settings(path, {}, {}).profile().temperature == 0.2
