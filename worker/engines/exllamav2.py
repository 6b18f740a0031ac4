"""ExLlamaV2 (0.3.2): EXL2, GPTQ and plain safetensors models on NVIDIA GPUs, with paged continuous batching.

This module checks what the package gets wrong without an error: the window of each job, architectures that it would
load as a Llama, rotary settings that it does not read, end tokens at which it does not stop, sampler defaults that are
not neutral. The package also sets torch to one thread for the whole process.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from exllamav2 import (
    ExLlamaV2,
    ExLlamaV2Cache,
    ExLlamaV2Cache_Q4,
    ExLlamaV2Cache_Q6,
    ExLlamaV2Cache_Q8,
    ExLlamaV2Cache_TP,
    ExLlamaV2Config,
    ExLlamaV2Tokenizer,
)
from exllamav2 import attn as exllamav2_attn
from exllamav2.generator import ExLlamaV2DynamicGenerator, ExLlamaV2DynamicJob, ExLlamaV2Sampler

from docmill.broker.sampling_parameters import Sampling
from docmill.catalogue.errors import CatalogueError
from docmill.catalogue.families import require_exllamav2
from docmill.catalogue.fingerprint import directory_fingerprint
from docmill.sizing.gpu_memory import CacheType
from docmill.sizing.gpu_plan import GpuPlan
from docmill.worker.engines.base import EngineFacts, ModelUnusable, Request
from docmill.worker.engines.gpu_loading import (
    CacheSize,
    eos_ids,
    gpu_split,
    load_stepping_down,
    plan_and_reality,
    plan_for_gpus,
    read_shape,
)
from docmill.worker.engines.paged import PAGE_TOKENS, PagedEngine
from docmill.worker.engines.spec import EngineSpec

_CACHES = {
    CacheType.FP16: ExLlamaV2Cache,
    CacheType.Q8: ExLlamaV2Cache_Q8,
    CacheType.Q6: ExLlamaV2Cache_Q6,
    CacheType.Q4: ExLlamaV2Cache_Q4,
}


@dataclass(frozen=True, slots=True)
class _Loaded:
    model: Any
    cache: Any


def load(spec: EngineSpec) -> PagedEngine:
    """The engine for a model directory. Raises ModelUnusable, whose message says what to do.

    Options: `kv_tokens`, the size of the cache instead of the planned one; `gpu_split`, GiB of weights on each GPU;
    `tensor_parallel`, to split each layer over all GPUs, if the architecture supports it.
    """
    shape = read_shape(spec)
    try:
        require_exllamav2(shape.architecture)
    except CatalogueError as error:
        raise ModelUnusable(str(error)) from error
    paged = _paged(spec)
    plan = plan_for_gpus(spec, shape, torch)
    loaded, size = load_stepping_down(spec, plan, lambda size: _try(spec, plan, size))
    for index in range(torch.cuda.device_count()):
        torch.cuda.reset_peak_memory_stats(index)  # loading needs more for a moment
    generator, tokenizer = _generator(spec, loaded, paged=paged)
    window = min(plan.window, size.tokens)
    facts = EngineFacts(
        engine="exllamav2",
        model=spec.model.name,
        context_window=window,
        slots=spec.slots if paged else 1,
        fingerprint=f"{directory_fingerprint(spec.model.path)}-kv-{size.cache_type}",
        remarks=tuple(_remarks(plan, size, paged=paged)),
    )
    ends = eos_ids(spec.model.path) or ((tokenizer.eos_token_id,) if tokenizer.eos_token_id is not None else ())
    return PagedEngine(
        facts, generator, partial(_make_job, ends), peak_bytes=lambda: _on_all(torch.cuda.max_memory_allocated),
        unload=loaded.model.unload,
    )  # fmt: skip


def _paged(spec: EngineSpec) -> bool:
    """True if paged attention, and so batching, is available. Raises ModelUnusable if it is needed and is not."""
    if exllamav2_attn.has_flash_attn_with_paged:
        return True
    if spec.slots == 1:
        return False
    raise ModelUnusable(
        "continuous batching on exllamav2 needs flash-attn 2.5.7 or later, which is not installed: "
        "pip install flash-attn==2.8.3 --no-build-isolation (docs/gpu.md), or run one job at a time with --slots 1"
    )


def _remarks(plan: GpuPlan, size: CacheSize, *, paged: bool) -> list[str]:
    allocated = _on_all(torch.cuda.memory_allocated)
    remarks = [plan_and_reality(plan, size, allocated)]
    full_jobs = size.tokens // max(1, plan.window)
    if full_jobs < plan.slots_wanted:
        remarks.append(
            f"the cache of {size.tokens:,} tokens holds {full_jobs} jobs of the full window of {plan.window:,}; more "
            "jobs run at once if they are shorter"
        )
    if not paged:
        remarks.append("one job at a time: without flash-attn there is no paged attention")
    return remarks


def _try(spec: EngineSpec, plan: GpuPlan, size: CacheSize) -> _Loaded | None:
    """Load model and cache; None if memory does not suffice."""
    model = ExLlamaV2(_config(spec, plan, size))
    try:
        if spec.options.get("tensor_parallel"):
            return _load_tensor_parallel(spec, model, size)
        cache = _CACHES[size.cache_type](model, max_seq_len=size.tokens, lazy=True)
        if split := gpu_split(spec):
            model.load(gpu_split=split)
            cache = _CACHES[size.cache_type](model, max_seq_len=size.tokens)
        else:
            model.load_autosplit(cache, last_id_only=True)
    except (RuntimeError, AssertionError) as error:  # torch's OutOfMemoryError is a RuntimeError
        if not _is_out_of_memory(error):
            raise ModelUnusable(f"exllamav2 cannot load {spec.model.path}: {_first_line(error)}") from error
        _release(model)
        return None
    except Exception as error:
        raise ModelUnusable(f"exllamav2 cannot load {spec.model.path}: {_first_line(error)}") from error
    return _Loaded(model, cache)


def _load_tensor_parallel(spec: EngineSpec, model: Any, size: CacheSize) -> _Loaded:
    if not model.config.arch.lm.supports_tp:
        raise ModelUnusable(
            f"{spec.model.name}: exllamav2 does not support tensor parallelism for {model.config.architecture}"
        )
    base = _CACHES[size.cache_type]
    model.load_tp(gpu_split=gpu_split(spec), expect_cache_tokens=size.tokens, expect_cache_base=base)
    return _Loaded(model, ExLlamaV2Cache_TP(model, max_seq_len=size.tokens, base=base))


def _config(spec: EngineSpec, plan: GpuPlan, size: CacheSize) -> Any:
    try:
        config = ExLlamaV2Config(str(spec.model.path))
    except Exception as error:
        raise ModelUnusable(f"exllamav2 cannot read {spec.model.path}: {_first_line(error)}") from error
    config.max_seq_len = min(plan.window, size.tokens)
    config.max_input_len = min(plan.max_input_len, size.tokens)
    config.max_batch_size = 1
    _set_rope_theta(spec, config)
    config.arch_compat_overrides(quiet=True)
    if not exllamav2_attn.has_flash_attn:
        config.no_sdpa = True  # 0.3.2 calls torch's attention without a causal mask
    if config.architecture.startswith("Qwen3"):
        config.arch.lm.headnorm = "rmsnorm"  # 0.3.2 would use a LayerNorm
    return config


def _set_rope_theta(spec: EngineSpec, config: Any) -> None:
    """Read `rope_parameters` of transformers 5. 0.3.2 does not, and would use a base of 10,000 without an error."""
    content = json.loads((spec.model.path / "config.json").read_text("utf-8"))
    content = content.get("text_config", content)
    parameters = content.get("rope_parameters")
    if parameters is None or "rope_theta" in content:
        return
    if not isinstance(parameters, dict) or parameters.get("rope_type", "default") != "default":
        raise ModelUnusable(
            f"{spec.model.path}/config.json defines the rotary embedding by rope_parameters {parameters!r}, which "
            "exllamav2 0.3.2 does not read; write rope_theta and rope_scaling into it, as transformers 4 did"
        )
    config.rotary_embedding_base = float(parameters.get("rope_theta", config.rotary_embedding_base))


def _generator(spec: EngineSpec, loaded: _Loaded, *, paged: bool) -> tuple[Any, Any]:
    try:
        tokenizer = ExLlamaV2Tokenizer(loaded.model.config)
    except Exception as error:
        raise ModelUnusable(
            f"exllamav2 cannot read the tokenizer of {spec.model.path}: {_first_line(error)}"
        ) from error
    generator = ExLlamaV2DynamicGenerator(
        loaded.model,
        loaded.cache,
        tokenizer,
        max_batch_size=spec.slots if paged else 1,
        max_chunk_size=loaded.model.config.max_input_len // PAGE_TOKENS * PAGE_TOKENS if paged else None,
        max_q_size=1,
        paged=paged,
        max_sampling_threads=min(spec.threads or 16, 64),
    )
    return generator, tokenizer


def _make_job(ends: tuple[int, ...], request: Request) -> Any:
    return ExLlamaV2DynamicJob(
        input_ids=torch.tensor([request.prompt_ids], dtype=torch.long),
        max_new_tokens=request.max_tokens,
        gen_settings=_settings(request.sampling),
        seed=request.sampling.seed,
        # There is no default: without end tokens it always generates max_new_tokens.
        stop_conditions=[*dict.fromkeys((*request.stop_token_ids, *ends)), *request.sampling.stop],
        identifier=request.id,
    )


def _settings(sampling: Sampling) -> Any:
    """New settings for each job, because some samplers keep state in them; no default is neutral."""
    settings = ExLlamaV2Sampler.Settings.greedy()
    settings.token_repetition_penalty = sampling.repetition_penalty
    settings.token_repetition_range = -1
    settings.token_repetition_decay = 0
    if sampling.temperature > 0:
        settings.temperature = sampling.temperature
        settings.top_k = sampling.top_k
        settings.top_p = sampling.top_p if sampling.top_p < 1 else 0.0  # 0 disables it
        settings.min_p = sampling.min_p
    return settings


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(
        words in str(error) for words in ("Insufficient VRAM", "out of memory")
    )


def _release(model: Any) -> None:
    model.unload()
    gc.collect()
    torch.cuda.empty_cache()


def _on_all(measure: Callable[[int], int]) -> int:
    return sum(measure(index) for index in range(torch.cuda.device_count()))


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
