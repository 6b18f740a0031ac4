"""OpenVINO GenAI's continuous batching: fast on a CPU, with weights it represents exactly.

A GGUF is converted to F16 once (its reader takes others fast and wrong). It accepts prompts longer than the window
and dies of damaged files, so both are checked before it sees them.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai

from docmill.broker.sampling import Sampling
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
    RequestId,
    check_fits,
    cut_at_stop,
    shown_text,
)
from docmill.worker.engines.spec import EngineSpec

_BATCHED_TOKENS = 512  # tokens a step; 2,048 was slower
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
_KV_BLOCK = 32  # tokens the cache grows by, on a CPU
_KV_PRECISIONS = {"fp16": "f16", "int8": "u8"}  # by `optimization.quantization`


@dataclass(slots=True)
class _Running:
    request: Request
    taken_at: float
    started_at: float = 0.0
    first_at: float | None = None
    handle: Any = None
    beside: list[int] = field(default_factory=list)
    read_ids: list[int] = field(default_factory=list)  # taken from the handle before the end: it gives each once


class OpenVinoEngine:
    """Requests wait here until there is room for them, so that waiting and computing are measured apart.

    Options: `precision` of the computation, bf16 or f32; `kv_tokens`, what the cache may grow to.
    """

    def __init__(self, spec: EngineSpec) -> None:
        precision = spec.options.get("precision") or ("bf16" if _has_bf16() else "f32")
        kv_precision = _KV_PRECISIONS[spec.kv_precision]
        remarks = spec.without_gpu("OpenVINO")
        path = _weights(spec)
        self._pipeline = _pipeline(path, spec, precision, kv_precision)
        self._kv_tokens = kv_cache_tokens(
            spec.window,
            spec.slots,
            bytes_per_token=_bytes_a_token(self._pipeline),
            configured=spec.options.get("kv_tokens"),
        )
        self._tokenizer = self._pipeline.get_tokenizer()
        fingerprint = f"{path.stem}-{precision}-kv-{kv_precision}"
        self.facts = EngineFacts("openvino", spec.model.name, spec.window, spec.slots, fingerprint, remarks)
        self._waiting: deque[_Running] = deque()
        self._running: dict[RequestId, _Running] = {}
        self._next_number = 0

    @property
    def in_flight(self) -> int:
        """Requests taken and not yet finished or cancelled."""
        return len(self._waiting) + len(self._running)

    def add(self, request: Request) -> None:
        """Take a request. Raises RequestRefused."""
        check_fits(request, self.facts.context_window)
        self._waiting.append(_Running(request, time.monotonic()))

    def step(self) -> list[Completion]:
        """One forward pass over everything that runs; returns what has finished."""
        while self._waiting and self._has_room(self._waiting[0]):
            self._start(self._waiting.popleft())
        if not self._running:
            return []
        self._pipeline.step()
        for running in self._running.values():
            running.beside.append(len(self._running))
            if running.first_at is None and running.handle.can_read():
                running.first_at = time.monotonic()
        finished = [r for r in self._running.values() if r.handle.get_status() != genai.GenerationStatus.RUNNING]
        for running in finished:
            del self._running[running.request.id]
        return [self._completion(running) for running in finished]

    def cancel(self, request_id: RequestId) -> None:
        """Stop a request without a completion; unknown ids are ignored."""
        self._waiting = deque(r for r in self._waiting if r.request.id != request_id)
        running = self._running.pop(request_id, None)
        if running is not None:
            running.handle.cancel()
            if not self._running:
                self._pipeline.step()  # only a step lets go of a cancelled request; nobody else's will come

    def text_so_far(self, request_id: RequestId) -> str | None:
        """What a request has written, None for unknown ids."""
        running = self._running.get(request_id)
        if running is None:
            return "" if any(waiting.request.id == request_id for waiting in self._waiting) else None
        while running.handle.can_read():
            running.read_ids += running.handle.read()[0].generated_ids
        text = self._tokenizer.decode(running.read_ids, skip_special_tokens=True) if running.read_ids else ""
        return shown_text(text, running.request.sampling.stop)

    def close(self) -> None:
        """Free the model."""
        self._waiting.clear()
        self._running.clear()
        self._pipeline = self._tokenizer = None

    def _has_room(self, candidate: _Running) -> bool:
        taken = sum(running.request.most_tokens for running in self._running.values())
        return len(self._running) < self.facts.slots and taken + candidate.request.most_tokens <= self._kv_tokens

    def _start(self, running: _Running) -> None:
        ids = np.array([running.request.prompt_ids], dtype=np.int64)
        self._next_number += 1
        running.started_at = time.monotonic()
        running.handle = self._pipeline.add_request(
            self._next_number, openvino.Tensor(ids), _generation_config(running.request)
        )
        self._running[running.request.id] = running

    def _completion(self, running: _Running) -> Completion:
        if running.handle.get_status() != genai.GenerationStatus.FINISHED:
            raise EngineFailed(f"OpenVINO gave the request up ({running.handle.get_status()}); is memory short?")
        output = running.handle.read_all()[0]
        request, now = running.request, time.monotonic()
        ids = [*running.read_ids, *output.generated_ids]
        written = len(ids)
        at_stop_token = bool(ids) and ids[-1] in request.stop_token_ids
        if at_stop_token:
            ids.pop()  # it is counted, and no part of the text
        text = self._tokenizer.decode(ids, skip_special_tokens=True)
        stopped = output.finish_reason == genai.GenerationFinishReason.STOP
        if stopped and not at_stop_token:  # the token in which a stop string ends is missing where it begins the next
            text = shown_text(text, request.sampling.stop)
        first_at = running.first_at or now
        return Completion(
            request_id=request.id,
            text=cut_at_stop(text, request.sampling.stop),
            finish_reason=FinishReason.STOP if stopped else FinishReason.LENGTH,
            prompt_tokens=len(request.prompt_ids),
            completion_tokens=written,
            queue_s=running.started_at - running.taken_at,
            prefill_s=first_at - running.started_at,
            decode_s=now - first_at,
            batch_size=sum(running.beside) / len(running.beside),
        )


def _weights(spec: EngineSpec) -> Path:
    if spec.model.kind is not ModelKind.GGUF:
        raise ModelUnusable(f"{spec.model.name} is no GGUF file; OpenVINO runs GGUF models here")
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
    scheduler.cache_size = 0  # both zero: the cache grows to what runs at once, and is used again
    properties = {
        "INFERENCE_PRECISION_HINT": precision,
        "KV_CACHE_PRECISION": kv_precision,  # said always: the default quantizes
        "INFERENCE_NUM_THREADS": spec.cpu_threads,
    }
    try:
        return genai.ContinuousBatchingPipeline(str(path), scheduler, "CPU", properties)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ModelUnusable(f"OpenVINO cannot load {path}: {reason}; try --engine llamacpp") from error


def _bytes_a_token(pipeline: Any) -> float:
    """What the cache takes for a token, measured on its first block."""
    config = genai.GenerationConfig()
    config.max_new_tokens = 1
    pipeline.add_request(0, openvino.Tensor(np.ones((1, _KV_BLOCK - 1), dtype=np.int64)), config)
    while pipeline.has_non_finished_requests():
        pipeline.step()
    return float(pipeline.get_metrics().kv_cache_size_in_bytes / _KV_BLOCK)


def _generation_config(request: Request) -> Any:
    sampling: Sampling = request.sampling
    config = genai.GenerationConfig()
    config.max_new_tokens = request.max_tokens
    config.stop_token_ids = set(request.stop_token_ids)
    config.stop_strings = set(sampling.stop)
    config.include_stop_str_in_output = True  # else its tokens go, and a token may be more than the string
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
    """Whether this CPU multiplies bf16 natively; elsewhere bf16 is emulated and slow."""
    try:
        flags = Path("/proc/cpuinfo").read_text("utf-8").partition("flags")[2].partition("\n")[0].split()
    except OSError:
        return False
    return not _BF16_FLAGS.isdisjoint(flags)
