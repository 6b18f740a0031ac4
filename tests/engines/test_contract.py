"""What docmill relies on in every engine, the simulated one included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from broker.sampling import Sampling
from catalogue.model import Model
from tests.engines.conftest import CPU_ENGINES, TESTED_ENGINES, Driven, load_for_test
from worker.engines.base import FinishReason, ModelUnusable, PromptTooLong, Request, RequestRefused
from worker.engines.registry import load_engine
from worker.engines.spec import EngineSpec

Prompt = Callable[[str], tuple[int, ...]]
pytestmark = pytest.mark.model


def test_facts_name_engine_model_window_and_slots(driven: Driven) -> None:
    facts = driven.engine.facts
    assert facts.engine in TESTED_ENGINES
    assert (facts.context_window, facts.slots) == (2048, 4)
    assert facts.model
    assert facts.fingerprint


def test_more_requests_than_slots_all_finish_and_share_the_engine(driven: Driven, prompt: Prompt) -> None:
    requests = [Request(f"r{i}", prompt(f"Write a story about the number {i}."), max_tokens=24) for i in range(9)]
    done = driven.run(*requests)
    assert set(done) == {r.id for r in requests}
    for request in requests:
        completion = done[request.id]
        assert completion.prompt_tokens == len(request.prompt_ids)
        assert 1 <= completion.completion_tokens <= 24
        assert completion.text.strip()
        assert completion.prefill_s >= 0
        assert completion.decode_s >= 0
    assert max(c.batch_size for c in done.values()) > 1
    assert max(c.queue_s for c in done.values()) > min(c.queue_s for c in done.values())


def test_max_tokens_ends_a_text_with_length(driven: Driven, prompt: Prompt) -> None:
    done = [driven.run(Request("r", prompt(f"Count from {i} to one thousand."), max_tokens=6))["r"] for i in range(3)]
    assert all(c.completion_tokens <= 6 for c in done)
    assert FinishReason.LENGTH in {c.finish_reason for c in done}


def test_a_stop_string_ends_the_text_before_it(driven: Driven, prompt: Prompt) -> None:
    request = Request("r", prompt("Write a long story about a garden, a river and a harbour."), max_tokens=64)
    whole = driven.run(request)["r"].text
    stop = whole.split()[4]
    stopped = driven.run(replace(request, sampling=Sampling(stop=(stop,))))["r"]
    assert stop not in stopped.text
    assert whole.startswith(stopped.text.rstrip())
    assert stopped.finish_reason is FinishReason.STOP


def test_an_end_token_ends_the_text_and_is_not_in_it(driven: Driven, prompt: Prompt, eos_ids: tuple[int, ...]) -> None:
    done = driven.run(Request("r", prompt("Say only the word yes."), max_tokens=200, stop_token_ids=eos_ids))["r"]
    assert "<|im_end|>" not in done.text
    if done.finish_reason is FinishReason.STOP:
        assert done.completion_tokens < 200


def test_greedy_text_is_the_same_again(driven: Driven, prompt: Prompt) -> None:
    request = Request("r", prompt("Describe the sea in three sentences."), max_tokens=32)
    assert driven.run(request)["r"].text == driven.run(request)["r"].text


def test_a_seed_repeats_and_another_seed_differs(driven: Driven, prompt: Prompt) -> None:
    def text(seed: int) -> str:
        sampling = Sampling(temperature=1.2, seed=seed)
        return driven.run(Request("r", prompt("Invent a name for a ship."), max_tokens=32, sampling=sampling))["r"].text

    assert text(1) == text(1)
    assert len({text(seed) for seed in (1, 2, 3)}) > 1


def test_sampling_parameters_are_taken(driven: Driven, prompt: Prompt) -> None:
    sampling = Sampling(temperature=0.7, top_p=0.9, top_k=20, min_p=0.05, repetition_penalty=1.1, seed=7)
    assert driven.run(Request("r", prompt("Tell me about bread."), max_tokens=16, sampling=sampling))["r"].text


def test_cancel_of_queued_and_running_requests_leaves_the_others(driven: Driven, prompt: Prompt) -> None:
    engine = driven.engine
    for i in range(8):
        engine.add(Request(f"r{i}", prompt(f"Write a very long story about {i}."), max_tokens=200))
    done = {c.request_id for c in engine.step()}
    for cancelled in ("r0", "r7", "unknown"):  # r0 runs, r7 waits for a slot
        engine.cancel(cancelled)
    done |= set(driven.drain())
    assert done - {"r0"} == {f"r{i}" for i in range(1, 7)}
    assert engine.in_flight == 0


def test_a_request_that_cannot_fit_is_refused_with_the_numbers(driven: Driven) -> None:
    with pytest.raises(PromptTooLong, match=r"2000 tokens and max_tokens 49 .* 2048"):
        driven.engine.add(Request("r", (5,) * 2000, max_tokens=49))
    with pytest.raises(RequestRefused, match="empty"):
        driven.engine.add(Request("r", (), max_tokens=4))
    with pytest.raises(RequestRefused, match="max_tokens"):
        driven.engine.add(Request("r", (5, 5), max_tokens=0))
    assert driven.engine.in_flight == 0


def test_a_prompt_that_fills_the_window_to_the_last_token_runs(driven: Driven, prompt: Prompt) -> None:
    ids = prompt("word " * 3000)[:2040]
    done = driven.run(Request("r", ids, max_tokens=8))["r"]
    assert done.prompt_tokens + done.completion_tokens <= 2048


def test_characters_torn_by_token_borders_come_whole(driven: Driven, prompt: Prompt) -> None:
    if driven.engine.facts.engine == "exllamav2":
        pytest.skip("random weights write torn characters themselves; test_exllamav2.py has SmolLM2's")
    text = 'Repeat exactly: "👩‍🚀 東京 naïve Привет 👨‍👩‍👧"'
    done = driven.run(*(Request(f"r{i}", prompt(f"{text} {i}"), max_tokens=48) for i in range(3)))
    for completion in done.values():
        assert "\ufffd" not in completion.text.rstrip("\ufffd")  # only the cut at max_tokens may tear one
        completion.text.encode()


def test_an_idle_step_returns_at_once_with_nothing(driven: Driven) -> None:
    assert driven.engine.step() == []


@pytest.mark.parametrize("engine", [name for name in CPU_ENGINES if name != "simulated"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "garbage", "empty"])
def test_damaged_models_are_a_clear_error(
    engine: str, damage: str, make_spec: Callable[..., EngineSpec], demo_model: Model, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    if damage == "truncated":
        with demo_model.path.open("rb") as whole:
            path.write_bytes(whole.read(40_000_000))
    elif damage == "garbage":
        path.write_bytes(b"GGUF" + bytes(range(256)) * 4000)
    elif damage == "empty":
        path.write_bytes(b"")
    spec = make_spec(engine, model=replace(demo_model, path=path), home=tmp_path)
    with pytest.raises(ModelUnusable, match=r"model\.gguf"):
        load_engine(spec)


def test_an_unknown_engine_is_named_with_those_there_are(make_spec: Callable[..., EngineSpec]) -> None:
    with pytest.raises(ModelUnusable, match="there are exllamav2, exllamav3, openvino"):
        load_engine(make_spec("turbo"))


@pytest.mark.parametrize("engine", TESTED_ENGINES)
def test_close_may_come_twice_with_work_in_flight(
    engine: str, make_spec: Callable[..., EngineSpec], prompt: Prompt
) -> None:
    loaded = load_for_test(make_spec(engine))
    for i in range(6):
        loaded.add(Request(f"r{i}", prompt("Write a story."), max_tokens=100))
    loaded.step()
    loaded.close()
    loaded.close()
