"""Every engine's greedy text against a plain fp32 forward pass on the same weights.

An engine that reads its weights wrong runs fast and writes fluent nonsense: OpenVINO on a Q4_1 file does. Rounding
alone makes texts part sooner or later; the floors are well below what was measured (mean of 48 first tokens: OpenVINO
f32 47, bf16 35, llama.cpp on Q4_1 21; OpenVINO reading Q4_1 itself 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import mean

import pytest

from docmill.catalogue.local_model import Model
from docmill.producer.model_text import ModelText
from docmill.worker.engines.base import Request
from docmill.worker.engines.load_engine import load_engine
from docmill.worker.engines.spec import EngineSpec
from tests.engines.conftest import CPU_ENGINES, Driven
from tests.engines.reference import ReferenceLlama

pytestmark = pytest.mark.model
MakeSpec = Callable[..., EngineSpec]

_TOKENS = 32
_PROMPTS = (
    "Write a long story about a lighthouse keeper and a storm.",
    "Explain how bread is made, step by step.",
    "Describe the city of Prague to a traveller.",
    "What is the difference between a virus and a bacterium?",
    "Why is the sky blue? Explain it to a child.",
    "Tell me about the moons of Jupiter.",
)
_FLOORS = {"openvino": 12, "llamacpp": 8}


@dataclass(frozen=True)
class Reference:
    """Prompts and their true greedy continuations."""

    model_text: ModelText
    prompts: tuple[tuple[int, ...], ...]
    continuations: tuple[tuple[int, ...], ...]

    def agreement(self, driven: Driven) -> float:
        """How many first tokens the engine's texts share with the true ones, the mean over the prompts."""
        requests = [Request(f"p{i}", ids, max_tokens=_TOKENS) for i, ids in enumerate(self.prompts)]
        done = driven.run(*requests)
        pairs = zip(requests, self.continuations, strict=True)
        return mean(self._shared(done[request.id].text, ids) for request, ids in pairs)

    def _shared(self, text: str, ids: tuple[int, ...]) -> int:
        for count in range(1, len(ids) + 1):
            if not text.startswith(self.model_text.tokenizer.decode(ids[:count]).rstrip("\ufffd")):
                return count - 1
        return len(ids)


@pytest.fixture(scope="session")
def reference(demo_model: Model, model_text: ModelText) -> Reference:
    prompts = tuple(tuple(model_text.renderer.render(None, prompt).ids) for prompt in _PROMPTS)
    continuations = ReferenceLlama(demo_model.path).greedy(prompts, _TOKENS)
    ends = set(model_text.tokenizer.eos_ids)
    assert not any(ends.intersection(ids) for ids in continuations), "these texts must not end early"
    return Reference(model_text, prompts, tuple(map(tuple, continuations)))


def test_the_reference_writes_sense(reference: Reference) -> None:
    text = reference.model_text.tokenizer.decode(reference.continuations[4])
    assert text.startswith("The sky is blue because of a process called scattering.")


@pytest.mark.parametrize("driven", _FLOORS, indirect=True)
def test_greedy_text_agrees_with_a_plain_forward_pass(driven: Driven, reference: Reference) -> None:
    floor = _FLOORS[driven.engine.facts.engine]
    assert reference.agreement(driven) >= floor
    assert reference.agreement(driven) >= floor  # again, with the prompts' beginnings in the cache


@pytest.fixture
def loaded(make_spec: MakeSpec) -> Iterator[Callable[..., Driven]]:
    engines: list[Driven] = []

    def load(engine: str, **changes: object) -> Driven:
        engines.append(Driven(load_engine(make_spec(engine, slots=len(_PROMPTS), context_window=512, **changes))))
        return engines[-1]

    yield load
    for driven in engines:
        driven.engine.close()


def test_openvino_in_fp32_agrees_to_the_last_token_but_a_few(
    loaded: Callable[..., Driven], reference: Reference
) -> None:
    assert reference.agreement(loaded("openvino", options={"precision": "f32"})) >= _TOKENS - 2


def test_openvino_with_keys_and_values_in_8_bits_agrees_as_well(
    loaded: Callable[..., Driven], reference: Reference
) -> None:
    driven = loaded("openvino", quantization="int8", options={"precision": "f32"})
    assert reference.agreement(driven) >= _TOKENS - 4
    assert driven.engine.facts.fingerprint.endswith("-f32-kv-u8")


def test_the_floors_catch_openvino_reading_a_q4_1_file_itself(
    loaded: Callable[..., Driven], reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("docmill.worker.engines.openvino.ensure_f16", lambda path, home: path)
    assert reference.agreement(loaded("openvino")) < min(_FLOORS.values()) - 2


def test_every_cpu_engine_with_a_model_has_a_floor() -> None:
    assert set(_FLOORS) == set(CPU_ENGINES) - {"simulated"}
