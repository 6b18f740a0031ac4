"""One loaded engine of each kind for the contract suite. exllamav3 has run nowhere here: it needs a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from docmill.catalogue.find_model import find_model
from docmill.catalogue.local_model import Model, ModelKind
from docmill.producer.model_text import ModelText
from docmill.worker.engines.base import Completion, Engine, Request
from docmill.worker.engines.load_engine import load_engine
from docmill.worker.engines.spec import EngineSpec
from tests.engines.in_child import EngineInChild
from tests.exllamav2_cpu.installed import require_exllamav2
from tests.exllamav2_cpu.models import tiny_model

CPU_ENGINES = ("openvino", "llamacpp", "simulated")
TESTED_ENGINES = ("exllamav2", *CPU_ENGINES)
WINDOW = 1024


@pytest.fixture(scope="session")
def tiny_llama(demo_model: Model, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A Llama of two layers with random weights, as a model directory."""
    directory = tiny_model(tmp_path_factory.mktemp("models") / "tiny", demo_model.path)
    return find_model(str(directory), home)


@pytest.fixture(scope="session")
def make_spec(demo_model: Model, tiny_llama: Model, home: Path) -> Callable[..., EngineSpec]:
    """A spec of the demo model on an engine; of a tiny one where that engine runs on its stand-in."""

    def make(engine: str, **changes: object) -> EngineSpec:
        model = tiny_llama if engine == "exllamav2" else demo_model
        if engine == "simulated":
            model = Model("simulated", demo_model.path, ModelKind.SIMULATED, demo_model.context_window)
        return EngineSpec(
            **{"engine": engine, "model": model, "home": home, "slots": 4, "context_window": WINDOW} | changes
        )  # type: ignore[arg-type]

    return make


@dataclass
class Driven:
    """An engine with the loop that its process runs around it."""

    engine: Engine

    def run(self, *requests: Request) -> dict[str, Completion]:
        """Add them all and step until all have ended."""
        for request in requests:
            self.engine.add(request)
        return self.drain()

    def drain(self, timeout_s: float = 120.0) -> dict[str, Completion]:
        """Step until nothing is in flight."""
        done: dict[str, Completion] = {}
        until = time.monotonic() + timeout_s
        while self.engine.in_flight:
            assert time.monotonic() < until, "the engine does not finish"
            for completion in self.engine.step():
                assert completion.request_id not in done
                done[completion.request_id] = completion
        return done


def load_for_test(spec: EngineSpec) -> Engine:
    """The engine here; exllamav2 in a process of its own."""
    if spec.engine != "exllamav2":
        return load_engine(spec)
    require_exllamav2()
    return EngineInChild(spec)


@pytest.fixture(scope="session", params=TESTED_ENGINES)
def driven(request: pytest.FixtureRequest, make_spec: Callable[..., EngineSpec]) -> Iterator[Driven]:
    """Each engine, loaded once."""
    engine = load_for_test(make_spec(request.param))
    yield Driven(engine)
    engine.close()


@pytest.fixture(scope="session")
def prompt(model_text: ModelText) -> Callable[[str], tuple[int, ...]]:
    """A user prompt as token ids."""
    return lambda user: tuple(model_text.renderer.render(None, user).ids)


@pytest.fixture(scope="session")
def eos_ids(model_text: ModelText) -> tuple[int, ...]:
    """The tokens that end a text."""
    return model_text.tokenizer.eos_ids
