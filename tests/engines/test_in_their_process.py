"""Real engines where they live, in a process of their own: what they die of, and what they cannot load."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from docmill.catalogue.local_model import Model
from docmill.worker.batcher import Batcher
from docmill.worker.engines.base import ModelUnusable, PromptTooLong, Request
from docmill.worker.engines.spec import EngineSpec
from tests.engines.conftest import CPU_ENGINES

pytestmark = pytest.mark.model
MakeSpec = Callable[..., EngineSpec]
REAL_ENGINES = [name for name in CPU_ENGINES if name != "simulated"]


@pytest.mark.parametrize("engine", REAL_ENGINES)
def test_requests_of_an_engine_that_was_killed_finish_in_the_next(
    engine: str, make_spec: MakeSpec, prompt: Callable[[str], tuple[int, ...]]
) -> None:
    batcher = Batcher(make_spec(engine, quantization="int8", cuda_enabled=True, cuda_layers="all", threads=1))
    try:
        facts = batcher.start()
        assert "CUDA is enabled" in facts.remarks[0]
        killed = batcher.engine_pid
        assert killed is not None
        with ThreadPoolExecutor(3) as threads:
            running = [
                threads.submit(batcher.generate, Request(f"r{i}", prompt(f"Write a long story {i}."), 12))
                for i in range(3)
            ]
            while batcher.in_flight < 3 and not any(future.done() for future in running):
                time.sleep(0.002)
            os.kill(killed, signal.SIGKILL)
            completions = [future.result() for future in running]
        assert batcher.engine_pid != killed
        assert all(completion.text.strip() for completion in completions)
        assert all(completion.peak_memory_bytes > 50_000_000 for completion in completions)
        with pytest.raises(PromptTooLong):
            batcher.generate(Request("long", (5,) * 1000, max_tokens=25))
    finally:
        batcher.close()


@pytest.mark.parametrize("engine", REAL_ENGINES)
def test_a_truncated_model_is_a_clear_error_and_leaves_no_process(
    engine: str, make_spec: MakeSpec, demo_model: Model, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    with demo_model.path.open("rb") as whole:
        path.write_bytes(whole.read(40_000_000))
    before = {child.pid for child in psutil.Process().children()}
    batcher = Batcher(make_spec(engine, model=replace(demo_model, path=path), home=tmp_path))
    with pytest.raises(ModelUnusable, match=r"model\.gguf.*truncated"):
        batcher.start()
    batcher.close()
    children = {child.pid for child in psutil.Process().children() if "engine" in child.name()}
    assert children <= before
