from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psutil
import pytest

from docmill.catalogue.local_model import Model
from docmill.sizing.cpu_kv_cache import kv_tokens, values_a_token
from docmill.worker.engines.spec import EngineSpec
from tests.engines.conftest import WINDOW, Driven

pytestmark = pytest.mark.model
MakeSpec = Callable[..., EngineSpec]


def test_the_values_of_a_token_are_keys_and_values_of_all_layers(demo_model: Model) -> None:
    assert values_a_token(demo_model.path) == 30 * 3 * (64 + 64)


@pytest.mark.parametrize("driven", ["openvino"], indirect=True)
def test_openvino_measures_what_is_computed_for_others(driven: Driven, demo_model: Model) -> None:
    engine: Any = driven.engine
    metrics = engine._pipeline.get_metrics()
    blocks, rest = divmod(metrics.kv_cache_size_in_bytes, 32 * 2 * values_a_token(demo_model.path))
    assert (blocks > 0, rest) == (True, 0)


def test_the_budget_is_what_the_slots_need_where_memory_allows(make_spec: MakeSpec) -> None:
    assert kv_tokens(make_spec("openvino"), bytes_a_token=1.0) == 4 * WINDOW


def test_the_budget_is_a_share_of_free_memory_where_it_is_short(make_spec: MakeSpec) -> None:
    two_windows_of_memory = psutil.virtual_memory().available / (2 * WINDOW)
    assert WINDOW <= kv_tokens(make_spec("openvino"), bytes_a_token=two_windows_of_memory) < 2 * WINDOW


def test_one_window_always_fits(make_spec: MakeSpec) -> None:
    assert kv_tokens(make_spec("openvino"), bytes_a_token=1.0, spoken_for_bytes=1 << 60) == WINDOW
    assert kv_tokens(make_spec("openvino", options={"kv_tokens": 1}), bytes_a_token=1.0) == WINDOW


def test_the_budget_may_be_set_by_hand(make_spec: MakeSpec) -> None:
    spec = make_spec("openvino", options={"kv_tokens": 1500})
    assert kv_tokens(spec, bytes_a_token=1e12) == 1500
