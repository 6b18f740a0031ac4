"""What exllamav2 leaves to its user to check, on the real package over the CPU stand-in of its kernels."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from docmill.broker.sampling_parameters import Sampling
from docmill.catalogue.f16_conversion import ensure_f16
from docmill.catalogue.find_model import find_model
from docmill.catalogue.local_model import Model, ModelKind
from docmill.producer.model_text import ModelText
from docmill.worker.engines.base import Completion, EngineFailed, FinishReason, ModelUnusable, PromptTooLong, Request
from docmill.worker.engines.load_engine import load_engine
from docmill.worker.engines.spec import EngineSpec
from tests.engines.conftest import Driven
from tests.engines.in_child import EngineInChild
from tests.exllamav2_cpu.installed import require_exllamav2
from tests.exllamav2_cpu.models import smollm2, tiny_model

pytestmark = pytest.mark.model
MakeSpec = Callable[..., EngineSpec]


@pytest.fixture(scope="module")
def tiny(tiny_llama: Model) -> Path:
    require_exllamav2()
    return tiny_llama.path


@pytest.fixture(scope="module")
def spec_of(home: Path) -> MakeSpec:
    def make(directory: Path, **changes: Any) -> EngineSpec:
        model = find_model(str(directory), home)
        return replace(EngineSpec("exllamav2", model, home, slots=4, context_window=1024), **changes)

    return make


@pytest.fixture(scope="module")
def spare() -> Iterator[EngineInChild]:
    """A process for one model after the other."""
    require_exllamav2()
    child = EngineInChild()
    yield child
    child.end()


@pytest.fixture
def started(spec_of: MakeSpec, spare: EngineInChild) -> Iterator[Callable[..., EngineInChild]]:
    """Loads a model, in a process of its own where it needs another environment."""
    engines: list[EngineInChild] = []

    def start(directory: Path, environment: dict[str, str] | None = None, **changes: Any) -> EngineInChild:
        spec = spec_of(directory, **changes)
        if not environment:
            spare.load(spec)
            return spare
        engines.append(EngineInChild(spec, **environment))
        return engines[-1]

    yield start
    for engine in engines:
        engine.end()


@pytest.fixture(scope="module")
def engine(tiny: Path, spec_of: MakeSpec) -> Iterator[EngineInChild]:
    engine = EngineInChild(spec_of(tiny))
    yield engine
    engine.end()


def _run(engine: EngineInChild, *requests: Request) -> dict[str, Completion]:
    return Driven(engine).run(*requests)


def _copy(source: Path, target: Path, **config: Any) -> Path:
    """The model's directory by links, with keys of config.json changed (None: removed)."""
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).hardlink_to(file)
    content = json.loads((target / "config.json").read_text()) | config
    (target / "config.json").unlink()
    (target / "config.json").write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    return target


def test_a_job_longer_than_the_window_is_refused_though_the_cache_has_room(engine: EngineInChild) -> None:
    assert engine.inspect("engine._generator.max_total_tokens") > 1024
    with pytest.raises(PromptTooLong, match="1024"):
        engine.add(Request("r", (5,) * 1000, max_tokens=25))
    assert engine.in_flight == 0


def test_a_cache_smaller_than_the_window_is_the_window(tiny: Path, started: Callable[..., EngineInChild]) -> None:
    engine = started(tiny, options={"kv_tokens": 512})
    assert engine.facts.context_window == 512
    with pytest.raises(PromptTooLong, match="512"):
        engine.add(Request("r", (5,) * 500, max_tokens=13))
    assert _run(engine, Request("r", (5,) * 500, max_tokens=12))["r"].completion_tokens == 12


def test_short_outputs_share_a_cache_that_long_ones_would_fill(
    tiny: Path, started: Callable[..., EngineInChild]
) -> None:
    engine = started(tiny, options={"kv_tokens": 1024})
    requests = [Request(f"r{i}", tuple(range(5 + i, 205 + i)), max_tokens=16) for i in range(4)]
    assert max(c.batch_size for c in _run(engine, *requests).values()) == 4
    long = [Request(f"l{i}", tuple(range(305 + i, 505 + i)), max_tokens=800) for i in range(2)]
    for request in long:
        engine.add(request)
    engine.step()
    assert engine.inspect("len(engine._generator.active_jobs)") == 1  # all pages of a job are taken at its start


def _third_token(engine: EngineInChild) -> int:
    """The id of the third token that the tiny model writes after `_ids`."""
    _run(engine, Request("r", _ids(), max_tokens=3))
    return int(engine.inspect("engine._last_started.job.sequences[0].sequence_ids.torch()[0, -1].item()"))


def _ids() -> tuple[int, ...]:
    return tuple(range(100, 140))


def test_every_id_of_the_models_list_of_end_tokens_ends_a_text(
    engine: EngineInChild, demo_model: Model, tmp_path: Path, started: Callable[..., EngineInChild]
) -> None:
    third = _third_token(engine)
    directory = tiny_model(tmp_path / "ends", demo_model.path, eos_token_ids=[2, third])
    done = _run(started(directory), Request("r", _ids(), max_tokens=40))["r"]
    assert (done.finish_reason, done.completion_tokens) == (FinishReason.STOP, 3)


def test_a_requests_own_stop_token_ends_it(engine: EngineInChild) -> None:
    request = Request("r", _ids(), max_tokens=40, stop_token_ids=(_third_token(engine),))
    done = _run(engine, request)["r"]
    assert (done.finish_reason, done.completion_tokens) == (FinishReason.STOP, 3)


def test_text_held_back_for_a_stop_string_is_not_lost_at_a_stop_token(engine: EngineInChild) -> None:
    third = _third_token(engine)
    whole = _run(engine, Request("r", _ids(), max_tokens=2))["r"].text
    held = Sampling(stop=(whole[-2:] + "never",))  # the end of what is written looks like the stop string's beginning
    request = Request("r", _ids(), max_tokens=40, stop_token_ids=(third,), sampling=held)
    assert _run(engine, request)["r"].text == whole


def test_nothing_of_the_packages_own_sampling_is_left(engine: EngineInChild) -> None:
    made = (
        "engine._make_job(__import__('docmill.worker.engines.base', fromlist=['Request']).Request('x', (5, 6), 4, {}))"
    )
    sampling = "__import__('docmill.broker.sampling_parameters', fromlist=['Sampling']).Sampling({})"

    def setting(name: str, arguments: str) -> Any:
        return engine.inspect(f"{made.format(sampling.format(arguments))}.gen_settings.{name}")

    assert [setting(n, "") for n in ("top_k", "token_repetition_penalty")] == [1, 1.0]
    warm = "temperature=0.5"
    assert [setting(n, warm) for n in ("temperature", "top_k", "top_p", "min_p", "token_repetition_penalty")] == [
        0.5, 0, 0.0, 0.0, 1.0,
    ]  # fmt: skip
    full = "temperature=0.5, top_p=0.8, top_k=9, min_p=0.1, repetition_penalty=1.2"
    assert [setting(n, full) for n in ("top_k", "top_p", "min_p", "token_repetition_penalty")] == [9, 0.8, 0.1, 1.2]
    assert engine.inspect(f"{made.format('None or ' + sampling.format(''))} is not None")


def test_a_shared_beginning_is_read_once_even_when_all_come_at_once(engine: EngineInChild) -> None:
    system = tuple(i % 997 + 50 for i in range(600))
    done = _run(engine, *(Request(f"r{i}", (*system, 7 + i, 9), max_tokens=4) for i in range(4)))
    cached = [done[f"r{i}"].cached_tokens or 0 for i in range(4)]
    assert cached[0] == 0
    assert all(tokens >= 512 for tokens in cached[1:])


def test_requests_with_a_shared_beginning_go_first_but_the_oldest_is_not_starved(engine: EngineInChild) -> None:
    first = tuple(i % 991 + 60 for i in range(300))
    other = tuple(i % 983 + 70 for i in range(300))
    engine.add(Request("a", (*first, 1), max_tokens=2))
    engine.step()
    order = ["other", *(f"a{i}" for i in range(20))]
    engine.add(Request("other", (*other, 1), max_tokens=2))
    for i in range(20):
        engine.add(Request(f"a{i}", (*first, 20 + i), max_tokens=2))
    finished = list(Driven(engine).drain())
    assert set(finished) == {"a", *order}
    assert 1 < finished.index("other") < 16


def test_an_architecture_that_would_load_as_a_llama_is_refused_with_what_runs_it(
    tiny: Path, tmp_path: Path, started: Callable[..., EngineInChild]
) -> None:
    for name in ("PhiForCausalLM", "PhiMoEForCausalLM", "Gemma3ForCausalLM", "NeverHeardOfForCausalLM"):
        with pytest.raises(ModelUnusable, match=f"exllamav2 does not run {name}.*llamacpp"):
            started(_copy(tiny, tmp_path / name, architectures=[name]))


def test_rope_parameters_of_transformers_5_are_taken_over_or_refused(
    tiny: Path, tmp_path: Path, started: Callable[..., EngineInChild]
) -> None:
    new = {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 123456.0}}
    engine = started(_copy(tiny, tmp_path / "new", **new))
    assert engine.inspect("engine._generator.model.config.rotary_embedding_base") == 123456.0
    yarn = {"rope_theta": None, "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}}
    with pytest.raises(ModelUnusable, match=r"rope_parameters.*rope_theta and rope_scaling"):
        started(_copy(tiny, tmp_path / "yarn", **yarn))


def test_qwen3_gets_the_norm_of_its_heads_that_it_was_trained_with(
    demo_model: Model, tmp_path: Path, started: Callable[..., EngineInChild]
) -> None:
    engine = started(tiny_model(tmp_path / "qwen3", demo_model.path, "Qwen3ForCausalLM"))

    assert engine.inspect("engine._generator.model.config.arch.lm.headnorm") == "rmsnorm"


def test_without_flash_attn_one_slot_runs_if_asked_and_more_are_refused(
    tiny: Path, engine: EngineInChild, started: Callable[..., EngineInChild]
) -> None:
    without = {"EXLLAMA_NO_FLASH_ATTN": "1"}
    with pytest.raises(ModelUnusable, match=r"flash-attn 2\.5\.7.*--slots 1"):
        started(tiny, without)
    alone = started(tiny, without, slots=1)
    assert any("one job at a time" in remark for remark in alone.facts.remarks)
    request = Request("r", _ids(), max_tokens=12)
    assert _run(alone, request)["r"].text == _run(engine, request)["r"].text


@pytest.mark.parametrize(("quantization", "kind"), [("int8", "Q8"), ("int6", "Q6"), ("int4", "Q4")])
def test_quantization_is_the_type_of_keys_and_values(
    quantization: str, kind: str, tiny: Path, started: Callable[..., EngineInChild]
) -> None:
    engine = started(tiny, quantization=quantization)
    assert engine.inspect("type(engine._generator.cache).__name__") == f"ExLlamaV2Cache_{kind}"
    assert engine.facts.fingerprint.endswith(f"kv-{kind.lower()}")
    assert _run(engine, Request("r", _ids(), max_tokens=8))["r"].completion_tokens == 8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cuda_enabled": False}, "runs on GPUs only"),
        ({"cuda_layers": 20}, "cuda_layers: all"),
        ({"kv_cache": False}, "kv_cache"),
    ],
)
def test_settings_that_cannot_apply_are_refused_with_the_reason(
    changes: dict[str, Any], words: str, tiny: Path, started: Callable[..., EngineInChild]
) -> None:
    with pytest.raises(ModelUnusable, match=words):
        started(tiny, **changes)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", None),
        ("config.json", b"{not json"),
        ("model.safetensors", None),
        ("model.safetensors", b"\xff" * 64),
        ("model.safetensors", "truncated"),
        ("tokenizer.json", b"{}"),
    ],
)
def test_a_damaged_directory_is_a_clear_error(
    file: str, content: bytes | str | None, tiny: Path, tmp_path: Path, home: Path, spare: EngineInChild
) -> None:
    directory = _copy(tiny, tmp_path / "damaged")
    whole = (directory / file).read_bytes()
    (directory / file).unlink()
    if content is not None:
        (directory / file).write_bytes(whole[: len(whole) // 2] if content == "truncated" else bytes(content))
    model = Model("damaged", directory, ModelKind.DIRECTORY, 1024)
    with pytest.raises(ModelUnusable, match=r"damaged"):
        spare.load(EngineSpec("exllamav2", model, home, slots=4, context_window=1024))


def test_memory_that_is_short_at_load_steps_the_cache_down(
    tiny: Path, tmp_path: Path, engine: EngineInChild, started: Callable[..., EngineInChild]
) -> None:
    once = {"DOCMILL_TEST_OOM_AT_STEP": "1", "DOCMILL_TEST_FAULT_ONCE": str(tmp_path / "happened")}
    small = started(tiny, once)
    assert (tmp_path / "happened").exists()
    tokens = small.inspect("engine._generator.max_total_tokens")
    assert 1024 <= tokens < engine.inspect("engine._generator.max_total_tokens")
    assert any(f"{tokens:,} cache tokens" in remark and "planned" in remark for remark in small.facts.remarks)
    assert _run(small, Request("r", _ids(), max_tokens=8))["r"].completion_tokens == 8


def test_a_model_that_does_not_fit_is_refused_with_the_numbers(
    tiny: Path, started: Callable[..., EngineInChild]
) -> None:
    with pytest.raises(ModelUnusable, match=r"does not fit: .* GiB of weights .* of q4; what would help: .*"):
        started(tiny, {"DOCMILL_TEST_VRAM_BYTES": str(1 << 20)})


def test_a_model_larger_than_one_gpu_is_laid_over_two(tiny: Path, started: Callable[..., EngineInChild]) -> None:
    engine = started(tiny, {"DOCMILL_TEST_GPUS": "2"}, options={"gpu_split": ["0.001", "1"]})
    assert _run(engine, Request("r", _ids(), max_tokens=8))["r"].completion_tokens == 8


def test_an_exception_in_a_step_is_raised_so_that_no_request_waits_for_ever(
    tiny: Path, started: Callable[..., EngineInChild]
) -> None:
    engine = started(tiny, {"DOCMILL_TEST_OOM_AT_STEP": "3"})
    for i in range(3):
        engine.add(Request(f"r{i}", _ids(), max_tokens=20))
    with pytest.raises(Exception, match="out of memory"):
        Driven(engine).drain()


def test_a_result_of_stage_error_is_a_failed_engine() -> None:
    """exllamav3 names no identifier in such a result."""
    from docmill.worker.engines.base import EngineFacts
    from docmill.worker.engines.paged import PagedEngine

    class Failing:
        def enqueue(self, job: Any) -> None: ...
        def cancel(self, job: Any) -> None: ...
        def iterate(self) -> list[dict[str, Any]]:
            return [{"stage": "error", "eos": True, "serial": 0, "error": ValueError("a bad kernel")}]

    facts = EngineFacts("exllamav3", "m", 512, 2, "f")
    engine = PagedEngine(facts, Failing(), lambda request: request, peak_bytes=lambda: 0, unload=lambda: None)
    engine.add(Request("r", (1, 2), max_tokens=2))
    with pytest.raises(EngineFailed, match="a bad kernel"):
        engine.step()


def test_importing_the_engine_changes_nothing_in_this_process(model_text: ModelText) -> None:
    import sys

    assert "exllamav2" not in sys.modules


@pytest.mark.slow
def test_smollm2_writes_what_llama_cpp_writes_with_the_same_weights(
    demo_model: Model, home: Path, model_text: ModelText, spec_of: MakeSpec, spare: EngineInChild
) -> None:
    """Greedy, the F16 weights on both sides: the first tokens agree on most prompts (an fp16 tie may part them)."""
    prompts = [
        "What is the capital of France?",
        "List three colours.",
        "Write one sentence about the sea.",
        "Who wrote Hamlet?",
        "Repeat exactly: naïve 東京 👩‍🚀",
        "What is two plus two?",
    ]
    requests = [
        Request(f"r{i}", tuple(model_text.renderer.render(None, text).ids), 16, stop_token_ids=(2,))
        for i, text in enumerate(prompts)
    ]
    f16 = replace(demo_model, path=ensure_f16(demo_model.path, home), sha256=None)
    llama = load_engine(EngineSpec("llamacpp", f16, home, slots=1, context_window=1024))
    expected = Driven(llama).run(*requests)
    llama.close()
    spare.load(spec_of(smollm2(demo_model.path, home / "cache"), slots=6))
    found = _run(spare, *requests)
    agreeing = 0
    for request in requests:
        mine, theirs = (model_text.tokenizer.encode(done[request.id].text) for done in (found, expected))
        shared = next((i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), len(mine))
        agreeing += shared >= 8 or mine == theirs
        assert "\ufffd" not in found[request.id].text.rstrip("\ufffd")
    assert agreeing >= 5


@pytest.mark.slow
def test_a_soak_of_adds_and_cancels_loses_no_request(tiny: Path, started: Callable[..., EngineInChild]) -> None:
    """`DOCMILL_SOAK_S=300` for a long one; jobs of every length, a third cancelled at random moments."""
    rng = random.Random(7)
    engine = started(tiny, options={"kv_tokens": 2048})
    until = time.monotonic() + float(os.environ.get("DOCMILL_SOAK_S", "10"))
    alive: set[str] = set()
    finished = cancelled = number = 0
    while time.monotonic() < until or alive:
        while time.monotonic() < until and len(alive) < 10:
            number += 1
            prompt = tuple(rng.randrange(50, 5000) for _ in range(rng.randrange(3, 500)))
            engine.add(Request(f"r{number}", prompt, max_tokens=rng.randrange(1, 60)))
            alive.add(f"r{number}")
        for completion in engine.step():
            assert completion.request_id in alive
            alive.remove(completion.request_id)
            finished += 1
        if alive and time.monotonic() < until and rng.random() < 0.05:
            victim = rng.choice(sorted(alive))
            engine.cancel(victim)
            alive.remove(victim)
            cancelled += 1
        assert engine.in_flight == len(alive)
    assert finished + cancelled == number
    assert finished > 10
    pages = "engine._generator.{}"
    assert engine.inspect(pages.format("referenced_pages")) == {}
