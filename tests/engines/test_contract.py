"""What docmill relies on in every engine, the simulated one included."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from docmill.broker.sampling_parameters import Sampling
from docmill.catalogue.local_model import Model
from docmill.producer.model_text import ModelText
from docmill.worker.engines.base import Completion, FinishReason, ModelUnusable, PromptTooLong, Request, RequestRefused
from docmill.worker.engines.load_engine import load_engine
from docmill.worker.engines.spec import EngineSpec
from tests.engines.conftest import CPU_ENGINES, TESTED_ENGINES, WINDOW, Driven, load_for_test

Prompt = Callable[[str], tuple[int, ...]]
pytestmark = pytest.mark.model


def test_facts_name_engine_model_window_and_slots(driven: Driven) -> None:
    facts = driven.engine.facts
    assert facts.engine in TESTED_ENGINES
    assert (facts.context_window, facts.slots) == (WINDOW, 4)
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


def test_a_stop_string_across_token_borders_ends_the_text_and_the_first_of_several_wins(
    driven: Driven, prompt: Prompt
) -> None:
    request = Request("r", prompt("Write a long story about a garden, a river and a harbour."), max_tokens=40)
    whole = driven.run(request)["r"].text
    middle = whole.index(" ", len(whole) // 3)
    stop = whole[middle - 2 : middle + 3]  # the end of one word and the beginning of the next
    late = whole[-3:]
    stopped = driven.run(replace(request, sampling=Sampling(stop=(late, stop, "never written"))))["r"]
    assert stopped.text == whole[: min(whole.index(stop), whole.index(late))]
    assert stopped.finish_reason is FinishReason.STOP
    assert stopped.completion_tokens < 40


def test_a_stop_token_ends_the_text_before_it(driven: Driven, prompt: Prompt, model_text: ModelText) -> None:
    if driven.engine.facts.engine == "simulated":
        pytest.skip("it has no vocabulary")
    request = Request("r", prompt("Write a long story about a garden, a river and a harbour."), max_tokens=32)
    whole = driven.run(request)["r"].text
    ids = model_text.tokenizer.encode(whole)
    stop = next(token for at, token in enumerate(ids) if at >= 4 and token not in ids[:at])
    stopped = driven.run(replace(request, stop_token_ids=(stop,)))["r"]
    assert stopped.text == model_text.tokenizer.decode(ids[: ids.index(stop)])
    if driven.engine.facts.engine != "exllamav2":  # random weights write tokens that a tokenizer would not
        assert stopped.completion_tokens == ids.index(stop) + 1
    assert stopped.finish_reason is FinishReason.STOP
    assert driven.engine.in_flight == 0


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


def test_what_a_running_request_shows_grows_and_is_the_beginning_of_its_text(driven: Driven, prompt: Prompt) -> None:
    request = Request("r", prompt("Write a long story about a garden, a river and a harbour."), max_tokens=40)
    whole = driven.run(request)["r"].text
    space = whole.index(" ", len(whole) * 2 // 3)
    stop = whole[space - 3 : space + 1]  # it ends where a token begins
    watched = replace(request, sampling=Sampling(stop=(stop,)))
    driven.engine.add(watched)
    assert driven.engine.text_so_far("r") == ""
    shown: list[str] = []
    done: list[Completion] = []
    while not done:
        done = driven.engine.step()
        if (text := driven.engine.text_so_far("r")) is not None:
            shown.append(text)
    assert done[0].text == whole[: whole.index(stop)]
    assert all(done[0].text.startswith(text) for text in shown)
    assert [len(text) for text in shown] == sorted(len(text) for text in shown)
    if driven.engine.facts.engine != "llamacpp":  # its steps are moments of waiting, in which much may be written
        assert len(set(shown)) > 3
    assert driven.engine.text_so_far("r") is None


def test_cancel_of_queued_and_running_requests_leaves_the_others(driven: Driven, prompt: Prompt) -> None:
    engine = driven.engine
    for i in range(8):
        engine.add(Request(f"r{i}", prompt(f"Write a very long story about {i}."), max_tokens=40))
    done = {c.request_id for c in engine.step()}
    for cancelled in ("r0", "r7", "unknown"):  # r0 runs, r7 waits for a slot
        engine.cancel(cancelled)
    done |= set(driven.drain())
    assert done - {"r0"} == {f"r{i}" for i in range(1, 7)}
    assert engine.in_flight == 0


def test_a_cancelled_engine_is_as_good_as_new(driven: Driven, prompt: Prompt) -> None:
    request = Request("r", prompt("Describe the sea in three sentences."), max_tokens=16)
    for i in range(6):
        driven.engine.add(Request(f"r{i}", prompt(f"Write a very long story about {i}."), max_tokens=500))
    driven.engine.step()
    for i in range(6):
        driven.engine.cancel(f"r{i}")
    assert driven.engine.in_flight == 0
    assert driven.engine.step() == []
    done = driven.run(request)["r"]
    assert done.text.strip()
    assert done.batch_size == 1.0


def test_the_metrics_of_a_request_are_its_own(driven: Driven, prompt: Prompt) -> None:
    """One that waits for a slot all the time that others run has waited, and has not computed, that long."""
    for i in range(4):
        driven.engine.add(Request(f"first{i}", prompt(f"Write a long story about {i}."), max_tokens=24))
    driven.engine.add(Request("last", prompt("Say yes."), max_tokens=1))
    started = time.monotonic()
    done = driven.drain()
    took_s = time.monotonic() - started
    for completion in done.values():
        parts = (completion.queue_s, completion.prefill_s, completion.decode_s)
        assert min(parts) >= 0
        assert sum(parts) <= took_s + 0.1  # nothing is counted twice
    assert done["last"].queue_s > max(done[f"first{i}"].queue_s for i in range(4))
    assert done["last"].completion_tokens == 1
    assert 1 <= done["last"].batch_size <= 4


def test_a_request_that_cannot_fit_is_refused_with_the_numbers(driven: Driven) -> None:
    with pytest.raises(PromptTooLong, match=r"1000 tokens and max_tokens 25 .* 1024"):
        driven.engine.add(Request("r", (5,) * 1000, max_tokens=25))
    with pytest.raises(RequestRefused, match="empty"):
        driven.engine.add(Request("r", (), max_tokens=4))
    with pytest.raises(RequestRefused, match="max_tokens"):
        driven.engine.add(Request("r", (5, 5), max_tokens=0))
    assert driven.engine.in_flight == 0


def test_a_prompt_that_fills_the_window_to_the_last_token_runs(driven: Driven, prompt: Prompt) -> None:
    ids = prompt("word " * 2000)[: WINDOW - 8]
    done = driven.run(Request("r", ids, max_tokens=8))["r"]
    assert done.prompt_tokens + done.completion_tokens <= WINDOW


def test_special_tokens_of_the_prompt_work_and_never_show_in_the_text(
    driven: Driven, prompt: Prompt, model_text: ModelText, eos_ids: tuple[int, ...]
) -> None:
    ids = prompt("Say hello.")
    assert set(ids) & set(model_text.tokenizer.vocabulary.special_ids.values())
    as_text = tuple(model_text.tokenizer.encode(model_text.tokenizer.decode(ids)))
    done = driven.run(*(Request(f"r{i}", p, 40, stop_token_ids=eos_ids) for i, p in enumerate((ids, as_text))))
    assert [done[f"r{i}"].prompt_tokens for i in range(2)] == [len(ids), len(as_text)]  # nothing was added
    names = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
    is_named = {id_: any(name in c.text for name in names) for id_, c in done.items()}
    assert not is_named["r0"]
    # The other read the names spelled out, and may spell one out itself: that takes several tokens, a shown one is one.
    spelled = len(model_text.tokenizer.encode(done["r1"].text))
    assert not is_named["r1"] or done["r1"].completion_tokens >= spelled, done["r1"].text


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
    with pytest.raises(ModelUnusable, match="choose one of exllamav2, exllamav3, openvino"):
        load_engine(make_spec("turbo"))


@pytest.mark.parametrize("engine", [name for name in CPU_ENGINES if name != "simulated"])
def test_forty_requests_over_the_budget_of_keys_and_values_all_finish(
    engine: str, make_spec: Callable[..., EngineSpec], prompt: Prompt
) -> None:
    loaded = load_engine(make_spec(engine, context_window=64, options={"kv_tokens": 80}))
    words = prompt("word " * 100)
    requests = [Request(f"r{i}", (300 + i, *words[:29]), max_tokens=4) for i in range(40)]
    done = Driven(loaded).run(*requests)
    loaded.close()
    assert set(done) == {request.id for request in requests}
    assert max(completion.batch_size for completion in done.values()) <= 2  # of four slots: memory decides


@pytest.mark.parametrize("engine", [name for name in CPU_ENGINES if name != "simulated"])
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"quantization": "int6"}, "int6 is not supported"),
        ({"kv_cache": False}, "kv_cache: false is not supported"),
        ({"cuda_layers": 20}, "cuda_layers: 20 is not supported"),
    ],
    ids=["int6", "no kv_cache", "cuda_layers"],
)
def test_settings_that_an_engine_cannot_follow_are_refused(
    engine: str, changes: dict[str, object], reason: str, make_spec: Callable[..., EngineSpec]
) -> None:
    with pytest.raises(ModelUnusable, match=reason):
        load_engine(make_spec(engine, **changes))


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
    assert loaded.step() == []
