"""The real package's dynamic generator, loaded and driven. Used inside a `Child` only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Output:
    """How one job ended. `logits` (tokens, vocabulary) in fp32 where they were asked for."""

    text: str
    ids: tuple[int, ...]
    reason: str
    cached_tokens: int
    steps: int
    logits: Any = None


@cache
def load(
    directory: Path,
    cache_bits: int = 16,
    cache_tokens: int = 2048,
    *,
    paged: bool = True,
    flash_attn: bool = True,
    as_packaged: bool = False,
) -> Any:
    """A generator over the model, its cache with 4, 6, 8 or 16 bits a value.

    `as_packaged` leaves two faults of 0.3.2 in: Qwen3's heads are normalized as if by LayerNorm, and without
    flash-attn a prompt's tokens see those behind them (PyTorch's attention gets no causal mask).
    """
    import exllamav2
    from exllamav2.generator import ExLlamaV2DynamicGenerator

    config = exllamav2.ExLlamaV2Config(str(directory))
    config.max_input_len = 512
    config.no_flash_attn = not flash_attn
    if not as_packaged:
        config.no_sdpa = True
        if config.architecture.startswith("Qwen3"):
            config.arch.lm.headnorm = "rmsnorm"
    config.arch_compat_overrides()
    model = exllamav2.ExLlamaV2(config)
    kind = "ExLlamaV2Cache" if cache_bits == 16 else f"ExLlamaV2Cache_Q{cache_bits}"
    kv = getattr(exllamav2, kind)(model, max_seq_len=cache_tokens, lazy=True)
    model.load_autosplit(kv, last_id_only=True)
    return ExLlamaV2DynamicGenerator(
        model,
        kv,
        exllamav2.ExLlamaV2Tokenizer(config),
        max_batch_size=8 if paged else 1,
        max_q_size=1,
        max_chunk_size=512,
        paged=paged,
    )


def add(generator: Any, prompt: str | Sequence[int], max_new_tokens: int, name: int = 0, **options: Any) -> Any:
    """Enqueue a greedy job, or one with `options` of ExLlamaV2DynamicJob."""
    import torch
    from exllamav2.generator import ExLlamaV2DynamicJob, ExLlamaV2Sampler

    ids = generator.tokenizer.encode(prompt) if isinstance(prompt, str) else torch.tensor([list(prompt)])
    options.setdefault("gen_settings", ExLlamaV2Sampler.Settings.greedy())
    job = ExLlamaV2DynamicJob(ids, max_new_tokens, identifier=name, **options)
    generator.enqueue(job)
    return job


def steps(generator: Any, count: int) -> list[dict[str, Any]]:
    """The results of so many iterations."""
    return [result for _ in range(count) for result in generator.iterate()]


def finish(generator: Any, earlier: Iterable[dict[str, Any]] = ()) -> dict[int, Output]:
    """Iterate until nothing is left; the outputs by name of all jobs, with the results they already had."""
    results = list(earlier)
    while generator.num_remaining_jobs():
        results += generator.iterate()
    seen: dict[int, list[dict[str, Any]]] = {}
    for result in results:
        if result["stage"] == "streaming":
            seen.setdefault(result["identifier"], []).append(result)
    return {name: _output(of_one) for name, of_one in seen.items()}


def _output(results: list[dict[str, Any]]) -> Output:
    import torch

    last = results[-1]
    held = last.get("held", {})
    parts = [*results, held]
    logits = [part["logits"][0] for part in parts if "logits" in part]
    return Output(
        text=last["full_completion"] + held.get("text", ""),
        ids=tuple(i for part in parts if "token_ids" in part for i in part["token_ids"][0].tolist()),
        reason=last["eos_reason"],
        cached_tokens=last["cached_tokens"],
        steps=len(results),
        logits=torch.cat(logits).numpy() if logits else None,
    )


def generate(
    generator: Any, prompts: Sequence[str | Sequence[int]], max_new_tokens: int, **options: Any
) -> list[Output]:
    """Run the prompts side by side; outputs in their order."""
    for name, prompt in enumerate(prompts):
        add(generator, prompt, max_new_tokens, name, **options)
    outputs = finish(generator)
    return [outputs[name] for name in range(len(prompts))]
