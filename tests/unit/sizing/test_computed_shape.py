"""The dimensions in the catalogue against the parameters on the models' cards, and against a shape read from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from docmill.catalogue.known_models import ENTRIES, find_entry
from docmill.catalogue.model_entry import CatalogueEntry
from docmill.sizing.gpu_plan import plan_gpu
from docmill.sizing.model_shape import computed_shape, read_model_shape
from tests.model_directories import write_exl2


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_the_dimensions_make_the_parameters_that_the_card_states(entry: CatalogueEntry) -> None:
    assert entry.dimensions.parameters == pytest.approx(entry.parameter_count, rel=0.001)


def test_a_computed_shape_makes_the_same_plan_as_one_that_was_read(tmp_path: Path) -> None:
    mistral = find_entry("mistral-7b")
    assert mistral is not None
    read, computed = read_model_shape(write_exl2(tmp_path / "m")), computed_shape(mistral, 4.65)
    assert computed.weights_bytes == pytest.approx(read.weights_bytes, rel=0.01)
    assert computed.embedding_bytes == pytest.approx(read.embedding_bytes, rel=0.01)
    for vram in (6 << 30, 12 << 30):
        plans = [plan_gpu(shape, [vram], window=8192, slots_wanted=16) for shape in (read, computed)]
        assert abs(plans[0].slots - plans[1].slots) <= 1
        assert plans[0].cache_bytes_per_token == plans[1].cache_bytes_per_token


def test_computed_shapes_of_tied_and_expert_models_match_their_files() -> None:
    by_name = {entry.name: entry for entry in ENTRIES}
    assert computed_shape(by_name["phi-3.5-moe-instruct"], 4.0).dimensions.experts == 16
    assert computed_shape(by_name["gemma-2-9b-it"], 4.0).residual_bytes == 4
    assert computed_shape(by_name["qwen3-4b"], 4.0).head_bytes > 0  # the embedding, loaded again as the head
