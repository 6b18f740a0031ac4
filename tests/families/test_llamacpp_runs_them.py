"""Every family's architecture loads in llama.cpp and answers through the engine, from a model written here."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from docmill.catalogue.families import engines_for, family_of
from docmill.catalogue.find_model import find_model
from docmill.catalogue.gguf_file import read_header
from docmill.catalogue.known_models import ENTRIES
from docmill.catalogue.local_model import Model
from docmill.producer.model_text import load_model_text
from docmill.worker.engines.base import Completion, Request
from docmill.worker.engines.llamacpp import LlamaCppEngine
from docmill.worker.engines.load_engine import choose_engine
from docmill.worker.engines.spec import EngineSpec
from tests.families.tiny_gguf import ARCHITECTURES, write_tiny_gguf


def answers(engine: LlamaCppEngine, *requests: Request) -> dict[str, Completion]:
    for request in requests:
        engine.add(request)
    done: dict[str, Completion] = {}
    until = time.monotonic() + 60
    while engine.in_flight:
        assert time.monotonic() < until, "the engine does not finish"
        done |= {completion.request_id: completion for completion in engine.step()}
    return done


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_tiny_model_of_the_architecture_answers(
    architecture: str, demo_model: Model, home: Path, tmp_path: Path
) -> None:
    path = write_tiny_gguf(tmp_path / f"tiny-{architecture}.gguf", architecture, demo_model.path)
    model = find_model(str(path), home)
    assert read_header(path).architecture == architecture
    assert "llamacpp" in engines_for(architecture)
    text = load_model_text(str(path), tmp_path)
    engine = LlamaCppEngine(EngineSpec("llamacpp", model, home, slots=2, threads=1))
    try:
        prompts = {name: tuple(text.renderer.render(None, f"{name} and the sea").ids) for name in ("one", "two")}
        done = answers(engine, *(Request(name, ids, max_tokens=8) for name, ids in prompts.items()))
        alone = [answers(engine, Request("one", prompts["one"], max_tokens=8))["one"].text for _ in range(2)]
    finally:
        engine.close()
    assert {name: done[name].prompt_tokens for name in done} == {name: len(ids) for name, ids in prompts.items()}
    assert all(1 <= completion.completion_tokens <= 8 for completion in done.values())
    assert any(completion.text for completion in done.values())
    assert alone[0] == alone[1]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_engine_chosen_for_the_file_is_one_that_runs_it(
    architecture: str, demo_model: Model, home: Path, tmp_path: Path
) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf", architecture, demo_model.path)
    assert choose_engine(find_model(str(path), home)) in engines_for(architecture)


def test_every_family_of_the_catalogue_is_run_here() -> None:
    families = {family_of(entry.architecture) for entry in ENTRIES}
    assert {family.gguf for family in families if family} == set(ARCHITECTURES)
