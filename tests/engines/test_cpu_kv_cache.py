from __future__ import annotations

from typing import Any

import psutil
import pytest

from docmill.catalogue.local_model import Model
from docmill.sizing.cpu_kv_cache import kv_cache_tokens, kv_values_per_token
from tests.engines.conftest import WINDOW, Driven

pytestmark = pytest.mark.model


def test_the_values_of_a_token_are_keys_and_values_of_all_layers(demo_model: Model) -> None:
    assert kv_values_per_token(demo_model.path) == 30 * 3 * (64 + 64)


@pytest.mark.parametrize("driven", ["openvino"], indirect=True)
def test_openvino_measures_what_is_computed_for_others(driven: Driven, demo_model: Model) -> None:
    engine: Any = driven.engine
    metrics = engine._pipeline.get_metrics()
    blocks, rest = divmod(metrics.kv_cache_size_in_bytes, 32 * 2 * kv_values_per_token(demo_model.path))
    assert (blocks > 0, rest) == (True, 0)


def test_the_budget_is_what_the_slots_need_if_memory_allows() -> None:
    assert kv_cache_tokens(WINDOW, 4, bytes_per_token=1.0) == 4 * WINDOW


def test_the_budget_is_a_share_of_free_memory_if_memory_is_short() -> None:
    two_windows_of_memory = psutil.virtual_memory().available / (2 * WINDOW)
    assert WINDOW <= kv_cache_tokens(WINDOW, 4, bytes_per_token=two_windows_of_memory) < 2 * WINDOW


def test_one_window_always_fits() -> None:
    assert kv_cache_tokens(WINDOW, 4, bytes_per_token=1.0, reserved_bytes=1 << 60) == WINDOW
    assert kv_cache_tokens(WINDOW, 4, bytes_per_token=1.0, configured=1) == WINDOW


def test_the_budget_can_be_configured() -> None:
    assert kv_cache_tokens(WINDOW, 4, bytes_per_token=1e12, configured=1500) == 1500
