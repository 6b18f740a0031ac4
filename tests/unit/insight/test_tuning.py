"""Tuning on the real engine process with the simulated engine, whose speed is known."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml

from docmill.catalogue.find_model import find_model
from docmill.insight.tuning import Grid, Measurement, TunedSettings, Workload, as_config, best_of, grid_for, tune
from docmill.producer.intake.documents import Document
from docmill.producer.model_text import ModelText
from docmill.producer.task_files import load_task
from docmill.settings.load import load_settings
from docmill.worker.engines.base import EngineError
from docmill.worker.engines.spec import EngineSpec

pytestmark = pytest.mark.slow

START = TunedSettings(threads=None, batch_size=2, quantization=None, chunk_tokens=100)


@pytest.fixture
def spec(home: Path) -> EngineSpec:
    """A step takes 10 ms, whatever is in it: the more jobs at once, the faster."""
    rates = {"decode_steps_per_s": 100.0, "prefill_tokens_per_s": 1e9}
    return EngineSpec("simulated", find_model("simulated", home), home, slots=2, options=rates)


@pytest.fixture
def workload(model_text: ModelText) -> Workload:
    content = "".join(f"The harbour was quiet on day {n}, and the boats stayed in. " for n in range(200))
    document = Document("harbour", "harbour.txt", lambda: iter(io.StringIO(content)))
    return Workload(document, load_task("summarize"), model_text, text_tokens=800, output_tokens=8)


def test_each_setting_is_varied_from_the_best_so_far_and_the_fastest_is_kept(
    spec: EngineSpec, workload: Workload
) -> None:
    grid = Grid(threads=[None], batch_size=[2, 8], quantization=[None], chunk_tokens=[100, 200])
    measured = list(tune(spec, grid, workload))
    assert [one.varied for one in measured] == ["start", "batch_size", "chunk_tokens"]
    assert len(measured) == grid.runs
    assert [one.jobs for one in measured] == [8, 8, 4]
    assert measured[1].settings.batch_size == measured[2].settings.batch_size == 8
    assert best_of(measured) in measured[1:]


def test_a_model_that_does_not_run_raises_with_the_reason(spec: EngineSpec, workload: Workload) -> None:
    grid = Grid(threads=[None], batch_size=[2], quantization=[None], chunk_tokens=[100])
    broken = EngineSpec("simulated", spec.model, spec.home, slots=2, options={"raise_on": [1], "raise_message": "no"})
    with pytest.raises(EngineError, match="does not run here"):
        list(tune(broken, grid, workload))


def test_a_small_speedup_is_ignored() -> None:
    def ran(rate: float | None) -> Measurement:
        return Measurement("x", START, rate)

    measured = [ran(100.0), ran(102.0), ran(None), ran(110.0), ran(112.0)]
    assert best_of(measured) is measured[3]


def test_the_grid_is_small_and_starts_with_the_configured_values(spec: EngineSpec) -> None:
    quick = grid_for(spec, 8, on_cpu=True, quick=True, max_chunk_tokens=7_000)
    full = grid_for(spec, 8, on_cpu=True, quick=False, max_chunk_tokens=1_500)
    assert quick.start == TunedSettings(None, 2, None, 1000)
    assert quick.runs < full.runs <= 16
    assert max(full.chunk_tokens) <= 1_500
    assert grid_for(spec, 8, on_cpu=False, quick=True, max_chunk_tokens=300).threads == [None]


def test_the_best_settings_load_as_a_configuration(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(as_config("smollm2-135m-instruct", TunedSettings(4, 8, "int8", 500))))
    profile = load_settings(file, environment={}).profile()
    tuned = profile.optimization
    assert (profile.chunk_tokens, tuned.threads, tuned.batch_size, tuned.quantization) == (500, 4, 8, "int8")
