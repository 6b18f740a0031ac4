"""OpenVINO GenAI with continuous batching: the fast engine for CPUs.

A GGUF file is converted to F16 once, because OpenVINO reads some quantized types inexactly and without an error. It
also accepts prompts longer than the context window and crashes on damaged files, so both are checked before.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai

from docmill.catalogue.errors import CatalogueError
from docmill.catalogue.f16_conversion import ensure_f16
from docmill.catalogue.local_model import ModelKind
from docmill.sizing.cpu_kv_cache import kv_cache_tokens
from docmill.worker.engines.base import (
    Completion,
    EngineFacts,
    EngineFailed,
    FinishReason,
    ModelUnusable,
    Request,
    shown_text,
)
from docmill.worker.engines.queueing_engine import QueuedRequest, QueueingEngine
from docmill.worker.engines.spec import EngineSpec

_BATCHED_TOKENS = 512  # tokens per step; 2,048 was slower
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
_KV_BLOCK = 32  # tokens by which the cache grows on a CPU
_KV_PRECISIONS = {"fp16": "f16", "int8": "u8"}  # by `optimization.quantization`


@dataclass(slots=True, eq=False)
class _OpenVinoRequest(QueuedRequest):
    handle: Any = None
    read_ids: list[int] = field(default_factory=list)  # read before the end; the handle returns each token once


class OpenVinoEngine(QueueingEngine[_OpenVinoRequest]):
    """Requests wait in our queue, not in OpenVINO's, so that waiting and computing are measured separately.

    Options: `precision` of the computation, bf16 or f32; `kv_tokens`, the largest size of the cache.
    """

    _request_type = _OpenVinoRequest

    def __init__(self, spec: EngineSpec) -> None:
        precision = spec.options.get("precision") or ("bf16" if _has_bf16() else "f32")
        kv_precision = _KV_PRECISIONS[spec.kv_precision]
        remarks = spec.without_gpu("OpenVINO")
        path = _weights(spec)
        self._pipeline = _pipeline(path, spec, precision, kv_precision)
        kv_tokens = kv_cache_tokens(
            spec.window,
            spec.slots,
            bytes_per_token=_bytes_per_token(self._pipeline),
            configured=spec.options.get("kv_tokens"),
        )
        self._tokenizer = self._pipeline.get_tokenizer()
        fingerprint = f"{path.stem}-{precision}-kv-{kv_precision}"
        super().__init__(
            EngineFacts("openvino", spec.model.name, spec.window, spec.slots, fingerprint, remarks),
            kv_tokens=kv_tokens,
        )
        self._next_number = 0

    def close(self) -> None:
        super().close()
        self._pipeline = self._tokenizer = None

    def _start(self, queued: _OpenVinoRequest) -> None:
        ids = openvino.Tensor(np.array([queued.request.prompt_ids], dtype=np.int64))
        self._next_number += 1
        queued.handle = self._pipeline.add_request(self._next_number, ids, _generation_config(queued.request))

    def _advance(self) -> list[Completion]:
        self._pipeline.step()
        for running in self._running.values():
            if running.first_token_at is None and running.handle.can_read():
                running.first_token_at = time.monotonic()
        running_status = genai.GenerationStatus.RUNNING
        return [self._completion(r) for r in self._running.values() if r.handle.get_status() != running_status]

    def _abort(self, running: _OpenVinoRequest) -> None:
        running.handle.cancel()
        if not self._running:
            self._pipeline.step()  # OpenVINO frees a cancelled request in its next step, and no other would follow

    def _text(self, running: _OpenVinoRequest) -> str:
        while running.handle.can_read():
            running.read_ids += running.handle.read()[0].generated_ids
        return self._decode(running.read_ids)

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True)) if ids else ""

    def _completion(self, running: _OpenVinoRequest) -> Completion:
        if running.handle.get_status() != genai.GenerationStatus.FINISHED:
            raise EngineFailed(
                f"OpenVINO dropped a request (status {running.handle.get_status()}), perhaps because memory is short"
            )
        output = running.handle.read_all()[0]
        ids = [*running.read_ids, *output.generated_ids]
        completion_tokens = len(ids)
        is_at_stop_token = bool(ids) and ids[-1] in running.request.stop_token_ids
        if is_at_stop_token:
            ids.pop()  # it is counted, but is not text
        text = self._decode(ids)
        has_stopped = output.finish_reason == genai.GenerationFinishReason.STOP
        if has_stopped and not is_at_stop_token:
            # OpenVINO leaves out the last token of a stop string if that token also begins the next one.
            text = shown_text(text, running.request.sampling.stop)
        return running.completion(text, FinishReason.STOP if has_stopped else FinishReason.LENGTH, completion_tokens)


def _weights(spec: EngineSpec) -> Path:
    if spec.model.kind is not ModelKind.GGUF:
        raise ModelUnusable(f"{spec.model.name} is not a GGUF file, the only format that docmill runs on OpenVINO")
    try:
        return ensure_f16(spec.model.path, spec.home)
    except CatalogueError as error:
        raise ModelUnusable(str(error)) from error


def _pipeline(path: Path, spec: EngineSpec, precision: str, kv_precision: str) -> Any:
    scheduler = genai.SchedulerConfig()
    scheduler.max_num_seqs = spec.slots
    scheduler.max_num_batched_tokens = _BATCHED_TOKENS
    scheduler.dynamic_split_fuse = True
    scheduler.enable_prefix_caching = True
    scheduler.num_kv_blocks = 0
    scheduler.cache_size = 0  # with both at 0 the cache grows as needed, and its blocks are reused
    properties = {
        "INFERENCE_PRECISION_HINT": precision,
        "KV_CACHE_PRECISION": kv_precision,  # always set: the default quantizes
        "INFERENCE_NUM_THREADS": spec.cpu_threads,
    }
    try:
        return genai.ContinuousBatchingPipeline(str(path), scheduler, "CPU", properties)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ModelUnusable(f"OpenVINO cannot load {path}: {reason}; try --engine llamacpp") from error


def _bytes_per_token(pipeline: Any) -> float:
    """Bytes that the cache takes per token, measured on its first block."""
    config = genai.GenerationConfig()
    config.max_new_tokens = 1
    pipeline.add_request(0, openvino.Tensor(np.ones((1, _KV_BLOCK - 1), dtype=np.int64)), config)
    while pipeline.has_non_finished_requests():
        pipeline.step()
    return float(pipeline.get_metrics().kv_cache_size_in_bytes / _KV_BLOCK)


def _generation_config(request: Request) -> Any:
    sampling = request.sampling
    config = genai.GenerationConfig()
    config.max_new_tokens = request.max_tokens
    config.stop_token_ids = set(request.stop_token_ids)
    config.stop_strings = set(sampling.stop)
    config.include_stop_str_in_output = True  # otherwise whole tokens are dropped, with text before the stop string
    config.repetition_penalty = sampling.repetition_penalty
    if sampling.temperature > 0:
        config.do_sample = True
        config.temperature = sampling.temperature
        config.top_p = sampling.top_p
        if sampling.top_k:
            config.top_k = sampling.top_k
        config.min_p = sampling.min_p
        config.rng_seed = time.monotonic_ns() % 2**32 if sampling.seed is None else sampling.seed
    return config


def _has_bf16() -> bool:
    """True if this CPU computes in bf16; others emulate it slowly."""
    try:
        flags = Path("/proc/cpuinfo").read_text("utf-8").partition("flags")[2].partition("\n")[0].split()
    except OSError:
        return False
    return not _BF16_FLAGS.isdisjoint(flags)
