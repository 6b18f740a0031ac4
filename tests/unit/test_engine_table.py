from __future__ import annotations

from importlib import metadata, util
from pathlib import Path

import pytest

import docmill.worker.engines
from docmill.engine_table import ENGINES, EngineInfo
from docmill.sizing.gpu_memory import CacheType

_NOT_ENGINES = {"__init__", "base", "gpu_loading", "paged", "load_engine", "queueing_engine", "spec"}


def test_every_module_of_an_engine_has_a_row() -> None:
    modules = {path.stem for path in Path(docmill.worker.engines.__path__[0]).glob("*.py")} - _NOT_ENGINES
    assert {engine.loader.partition(":")[0].rpartition(".")[2] for engine in ENGINES} == modules


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_a_row_names_a_module_an_extra_and_precisions_that_exist(engine: EngineInfo) -> None:
    assert util.find_spec(engine.loader.partition(":")[0]) is not None
    assert engine.extra is None or engine.extra in (metadata.metadata("docmill").get_all("Provides-Extra") or ())
    assert [CacheType.from_quantization(precision) for precision in engine.kv_precisions]
