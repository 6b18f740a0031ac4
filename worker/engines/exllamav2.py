"""ExLlamaV2 (0.3.2): EXL2, GPTQ and plain safetensors models on NVIDIA GPUs, with paged continuous batching.

What the package does not check or gets wrong in silence is checked here: the window of each job, architectures that
it would load "as Llama", rotary settings it does not read, end tokens it does not stop at, sampler settings that are
not neutral. It sets torch to one thread for the whole process, which is why it lives in the engine process.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from dataclasses import dataclass
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

from docmill.broker.sampling import Sampling
from docmill.catalogue.errors import CatalogueError
from docmill.catalogue.families import require_exllamav2
from docmill.catalogue.fingerprint import directory_fingerprint
from docmill.sizing.gpu_memory import CacheType
from docmill.sizing.gpu_plan import GpuPlan
from docmill.worker.engines.base import EngineFacts, ModelUnusable, Request
from docmill.worker.engines.gpu_loading import (
    CacheSize,
    eos_ids,
    load_stepping_down,
    plan_and_reality,
    plan_of,
    read_shape,
    refuse_cpu_settings,
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
    """The engine for a model directory. Raises ModelUnusable, saying what to do.

    Options: `kv_tokens`, the size of the cache, instead of the planned one; `gpu_split`, GiB of each GPU;
    `tensor_parallel`, over all GPUs where the architecture can.
    """
    refuse_cpu_settings(spec)
    shape = read_shape(spec)
    try:
        require_exllamav2(shape.architecture)
    except CatalogueError as error:
        raise ModelUnusable(str(error)) from error
    paged = _paged(spec)
    devices = torch.cuda.device_count()
    if not devices:
        raise ModelUnusable("exllamav2 needs an NVIDIA GPU, and torch sees none; `docmill plan` and docs/gpu.md help")
    plan = plan_of(spec, shape, [torch.cuda.mem_get_info(index)[0] for index in range(devices)])
    loaded, size = load_stepping_down(spec, plan, lambda size: _try(spec, plan, size))
    for index in range(devices):
        torch.cuda.reset_peak_memory_stats(index)  # loading itself holds more for a moment
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
        facts, generator, _job_maker(ends), peak_bytes=lambda: _on_all(torch.cuda.max_memory_allocated),
        unload=loaded.model.unload,
    )  # fmt: skip


def _paged(spec: EngineSpec) -> bool:
    """Whether batching is to be had. Raises ModelUnusable where it was asked for and is not."""
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
    whole = size.tokens // max(1, plan.window)
    if whole < plan.slots_wanted:
        remarks.append(
            f"the cache of {size.tokens:,} tokens holds {whole} jobs of the full window {plan.window:,}; shorter "
            "jobs share it, longer ones wait for room"
        )
    if not paged:
        remarks.append("one job at a time: without flash-attn there is no paged attention")
    return remarks


def _try(spec: EngineSpec, plan: GpuPlan, size: CacheSize) -> _Loaded | None:
    """Load model and cache; None where memory does not suffice."""
    model = ExLlamaV2(_config(spec, plan, size))
    try:
        if spec.options.get("tensor_parallel"):
            return _load_tensor_parallel(spec, model, size)
        cache = _CACHES[size.cache_type](model, max_seq_len=size.tokens, lazy=True)
        split = spec.options.get("gpu_split")
        if split:
            model.load(gpu_split=[float(part) for part in split])
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
        raise ModelUnusable(f"{spec.model.name}: exllamav2 has no tensor parallelism for {model.config.architecture}")
    split = spec.options.get("gpu_split")
    model.load_tp(gpu_split=[float(part) for part in split] if split else None, expect_cache_tokens=size.tokens,
                  expect_cache_base=_CACHES[size.cache_type])  # fmt: skip
    return _Loaded(model, ExLlamaV2Cache_TP(model, max_seq_len=size.tokens, base=_CACHES[size.cache_type]))


def _config(spec: EngineSpec, plan: GpuPlan, size: CacheSize) -> Any:
    try:
        config = ExLlamaV2Config(str(spec.model.path))
    except Exception as error:
        raise ModelUnusable(f"exllamav2 cannot read {spec.model.path}: {_first_line(error)}") from error
    config.max_seq_len = min(plan.window, size.tokens)
    config.max_input_len = min(plan.max_input_len, size.tokens)
    config.max_batch_size = 1
    _take_over_rope_parameters(spec, config)
    config.arch_compat_overrides(quiet=True)
    if not exllamav2_attn.has_flash_attn:
        config.no_sdpa = True  # 0.3.2 gives torch's attention no causal mask
    if config.architecture.startswith("Qwen3"):
        config.arch.lm.headnorm = "rmsnorm"  # 0.3.2 takes the norm of its heads for a LayerNorm
    return config


def _take_over_rope_parameters(spec: EngineSpec, config: Any) -> None:
    """transformers 5 writes `rope_parameters`, which 0.3.2 does not read: it would take a base of 10,000 silently."""
    content = json.loads((spec.model.path / "config.json").read_text("utf-8"))
    content = content.get("text_config", content)
    parameters = content.get("rope_parameters")
    if parameters is None or "rope_theta" in content:
        return
    if not isinstance(parameters, dict) or parameters.get("rope_type", "default") != "default":
        raise ModelUnusable(
            f"{spec.model.path}/config.json describes its rotary embedding by rope_parameters {parameters!r}, which "
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


def _job_maker(ends: tuple[int, ...]) -> Callable[[Request], Any]:
    def make(request: Request) -> Any:
        return ExLlamaV2DynamicJob(
            input_ids=torch.tensor([request.prompt_ids], dtype=torch.long),
            max_new_tokens=request.max_tokens,
            gen_settings=_settings(request.sampling),
            seed=request.sampling.seed,
            # There is no default: without them it writes on to max_new_tokens.
            stop_conditions=[*dict.fromkeys((*request.stop_token_ids, *ends)), *request.sampling.stop],
            identifier=request.id,
        )

    return make


def _settings(sampling: Sampling) -> Any:
    """A Settings of the job's own (some samplers keep state in it), with nothing left at its default."""
    settings = ExLlamaV2Sampler.Settings.greedy()
    settings.token_repetition_penalty = sampling.repetition_penalty
    settings.token_repetition_range = -1
    settings.token_repetition_decay = 0
    if sampling.temperature > 0:
        settings.temperature = sampling.temperature
        settings.top_k = sampling.top_k
        settings.top_p = sampling.top_p if sampling.top_p < 1 else 0.0  # 0 switches it off
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
