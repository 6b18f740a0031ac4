"""One prompt at several temperatures, on real engine processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from docmill.catalogue.local_model import Model, ModelKind
from docmill.insight.temperature_trial import Question, TemperatureTrial, TrialResult
from docmill.producer.errors import ProducerError
from docmill.producer.model_text import ModelText
from docmill.worker.engines.base import PromptTooLong
from docmill.worker.engines.spec import EngineSpec

ASKED = Question("Why is the sky blue?", None, (0.2, 1.0, 0.7), max_tokens=6)


@pytest.fixture
def spec(demo_model: Model, home: Path) -> EngineSpec:
    """The simulated engine, which generates random words of the real vocabulary."""
    model = Model("simulated", demo_model.path, ModelKind.SIMULATED, 512)
    return EngineSpec("simulated", model, home, slots=3)


def run(spec: EngineSpec, text: ModelText, question: Question) -> TrialResult:
    with TemperatureTrial(spec, text, question) as trial:
        trial.load()
        return trial.ask()


def test_answers_are_in_the_order_of_the_temperatures_and_generated_together(
    spec: EngineSpec, model_text: ModelText
) -> None:
    trial = run(spec, model_text, ASKED)
    assert [answer.temperature for answer in trial.answers] == [0.2, 1.0, 0.7]
    completions = [answer.completion for answer in trial.answers]
    assert all(done is not None and 1 <= done.completion_tokens <= 6 for done in completions)
    assert max(done.batch_size for done in completions if done) > 1
    assert trial.prompt_tokens == len(model_text.renderer.render(None, ASKED.prompt).ids)
    assert trial.facts.engine == "simulated"


def test_a_prompt_that_does_not_fit_is_rejected_before_loading(spec: EngineSpec, model_text: ModelText) -> None:
    with pytest.raises(PromptTooLong):
        TemperatureTrial(spec, model_text, replace(ASKED, max_tokens=512))


def test_invalid_sampling_is_rejected(spec: EngineSpec, model_text: ModelText) -> None:
    with pytest.raises(ProducerError, match="top_p"):
        TemperatureTrial(spec, model_text, replace(ASKED, sampling={"top_p": 2.0}))


def test_a_system_prompt_is_read_by_the_model(spec: EngineSpec, model_text: ModelText) -> None:
    with_system = run(spec, model_text, replace(ASKED, system="Answer as a pirate, and never otherwise. " * 3))
    assert with_system.prompt_tokens > run(spec, model_text, ASKED).prompt_tokens


@pytest.mark.model
def test_the_real_model_answers_differently_at_a_high_temperature(
    demo_model: Model, home: Path, model_text: ModelText
) -> None:
    spec = EngineSpec("llamacpp", demo_model, home, slots=2, context_window=512)
    question = Question("Name three colours.", None, (0.0, 2.0), max_tokens=12, sampling={"seed": 5})
    with TemperatureTrial(spec, model_text, question) as trial:
        trial.load()
        result = trial.ask()
    cold, hot = (answer.completion for answer in result.answers)
    assert cold is not None
    assert hot is not None
    assert cold.text.strip()
    assert cold.text != hot.text
    assert result.answers[0].tokens_per_s is not None
