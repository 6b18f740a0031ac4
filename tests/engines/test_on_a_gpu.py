"""For a machine with an NVIDIA GPU: `DOCMILL_GPU_MODEL=/models/some-exl2 make test`. Not run anywhere yet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from docmill.catalogue.find_model import find_model
from docmill.producer.model_text import ModelText, load_model_text
from docmill.sizing.gpu_devices import NoGpu, read_gpus
from docmill.worker.batcher import Batcher
from docmill.worker.engines.base import EngineFacts, FinishReason, Request
from docmill.worker.engines.load_engine import choose_engine
from docmill.worker.engines.spec import EngineSpec

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def directory() -> Path:
    try:
        read_gpus()
    except NoGpu as error:
        pytest.skip(f"not run: {error}")
    if "DOCMILL_GPU_MODEL" not in os.environ:
        pytest.skip("not run: DOCMILL_GPU_MODEL names no EXL2 or EXL3 directory")
    return Path(os.environ["DOCMILL_GPU_MODEL"])


@pytest.fixture(scope="module")
def text(directory: Path, home: Path) -> ModelText:
    return load_model_text(str(directory), home)


@pytest.fixture(scope="module")
def loaded(directory: Path, home: Path) -> Iterator[tuple[Batcher, EngineFacts]]:
    """In an engine process, as a worker loads it."""
    model = find_model(str(directory), home)
    batcher = Batcher(EngineSpec(choose_engine(model), model, home, slots=8, context_window=2048))
    yield batcher, batcher.start()
    batcher.close()


def test_a_real_model_answers_and_stops_at_its_end_token(loaded: tuple[Batcher, EngineFacts], text: ModelText) -> None:
    batcher, _ = loaded
    ids = tuple(text.renderer.render(None, "Say only the word yes.").ids)
    done = batcher.generate(Request("yes", ids, max_tokens=64, stop_token_ids=text.tokenizer.eos_ids))
    assert "yes" in done.text.lower()
    assert done.finish_reason is FinishReason.STOP
    assert (done.peak_vram_bytes or 0) > 1 << 28
    assert done.energy_j is None or done.energy_j > 0  # boards before Volta have no counter


def test_a_shared_beginning_is_cached_on_the_gpu(loaded: tuple[Batcher, EngineFacts], text: ModelText) -> None:
    batcher, _ = loaded
    long = "The harbour was quiet that winter, and the letters did not come. " * 60
    prompts = [tuple(text.renderer.render(None, f"{long} {i}").ids) for i in range(2)]
    done = [batcher.generate(Request(f"r{i}", ids, max_tokens=8)) for i, ids in enumerate(prompts)]
    assert (done[1].cached_tokens or 0) >= 256


def test_plan_and_reality_agree_within_a_tenth(loaded: tuple[Batcher, EngineFacts]) -> None:
    _, facts = loaded
    (remark,) = [remark for remark in facts.remarks if "planned" in remark]
    assert abs(float(remark.rpartition("(")[2].rstrip("%)"))) <= 10
