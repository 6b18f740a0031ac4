"""ExLlamaV3 (1.6): EXL3 models on NVIDIA GPUs.

Written from the package's source and never run: there was no GPU, and there is no stand-in for its kernels. What it
shares with exllamav2 (queue, plan, smaller caches) is tested there; docs/gpu.md lists what is not tested.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from exllamav3 import Cache, CacheLayer_fp16, CacheLayer_quant, Config, Generator, Job, Model, Tokenizer
from exllamav3.generator.sampler import ComboSampler

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
from docmill.worker.engines.paged import PagedEngine
from docmill.worker.engines.spec import EngineSpec

_BITS = {CacheType.Q8: 8, CacheType.Q6: 6, CacheType.Q4: 4}


@dataclass(frozen=True, slots=True)
class _Loaded:
    config: Any
    model: Any
    cache: Any


def load(spec: EngineSpec) -> PagedEngine:
    """The engine for an EXL3 directory. Raises ModelUnusable. Options as in exllamav2."""
    plan = plan_for_gpus(spec, read_shape(spec), torch)
    devices = torch.cuda.device_count()
    loaded, size = load_stepping_down(spec, plan, lambda size: _try(spec, plan, size))
    generator = Generator(
        loaded.model,
        loaded.cache,
        Tokenizer.from_config(loaded.config),
        max_batch_size=spec.slots,
        max_chunk_size=plan.max_input_len,
        max_q_size=1,
    )
    facts = EngineFacts(
        engine="exllamav3",
        model=spec.model.name,
        context_window=min(plan.window, size.tokens),
        slots=spec.slots,
        fingerprint=f"{directory_fingerprint(spec.model.path)}-kv-{size.cache_type}",
        remarks=(plan_and_reality(plan, size, sum(torch.cuda.memory_allocated(i) for i in range(devices))),),
    )
    return PagedEngine(
        facts,
        generator,
        partial(_make_job, eos_ids(spec.model.path)),
        peak_bytes=lambda: sum(torch.cuda.max_memory_allocated(i) for i in range(devices)),
        unload=loaded.model.unload,
    )


def _try(spec: EngineSpec, plan: GpuPlan, size: CacheSize) -> _Loaded | None:
    """Load model and cache; None if memory does not suffice. The cache must exist before the model is loaded."""
    try:
        config = Config.from_directory(str(spec.model.path))
        model = Model.from_config(config)
    except Exception as error:
        raise ModelUnusable(f"exllamav3 cannot read {spec.model.path}: {error}") from error
    bits = _BITS.get(size.cache_type)
    if bits is None:
        cache = Cache(model, max_num_tokens=size.tokens, layer_type=CacheLayer_fp16, max_batch_size=spec.slots)
    else:
        cache = Cache(
            model, max_num_tokens=size.tokens, layer_type=CacheLayer_quant, max_batch_size=spec.slots,
            k_bits=bits, v_bits=bits,
        )  # fmt: skip
    try:
        model.load(
            use_per_device=gpu_split(spec),
            tensor_p=bool(spec.options.get("tensor_parallel")),
            max_chunk_size=plan.max_input_len,
        )
    except Exception as error:
        if not isinstance(error, torch.cuda.OutOfMemoryError) and "nsufficient VRAM" not in str(error):
            raise ModelUnusable(f"exllamav3 cannot load {spec.model.path}: {error}") from error
        model.unload()
        gc.collect()
        torch.cuda.empty_cache()
        return None
    return _Loaded(config, model, cache)


def _make_job(ends: tuple[int, ...], request: Request) -> Any:
    sampling = request.sampling
    sampler = ComboSampler(
        rep_p=sampling.repetition_penalty,
        temperature=sampling.temperature,
        min_p=sampling.min_p,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
    )
    return Job(
        input_ids=torch.tensor([request.prompt_ids], dtype=torch.long),
        max_new_tokens=request.max_tokens,
        sampler=sampler,
        seed=sampling.seed,
        stop_conditions=[*dict.fromkeys((*request.stop_token_ids, *ends)), *sampling.stop],
        identifier=request.id,
    )
