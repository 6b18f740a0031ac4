"""One loaded engine of each kind for the contract suite."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from catalogue.model import Model, ModelKind
from producer.model_text import ModelText
from worker.engines.base import Completion, Engine, Request
from worker.engines.registry import ENGINES, load_engine
from worker.engines.spec import EngineSpec


@pytest.fixture(scope="session")
def make_spec(demo_model: Model, home: Path) -> Callable[..., EngineSpec]:
    """A spec of the demo model on an engine."""

    def make(engine: str, **changes: object) -> EngineSpec:
        model = demo_model
        if engine == "simulated":
            model = Model("simulated", demo_model.path, ModelKind.SIMULATED, demo_model.context_window)
        return EngineSpec(
            **{"engine": engine, "model": model, "home": home, "slots": 4, "context_window": 2048} | changes
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


@pytest.fixture(scope="module", params=ENGINES)
def driven(request: pytest.FixtureRequest, make_spec: Callable[..., EngineSpec]) -> Iterator[Driven]:
    """Each engine, loaded once."""
    engine = load_engine(make_spec(request.param))
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
