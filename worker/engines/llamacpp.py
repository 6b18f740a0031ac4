"""llama.cpp's server, in this process through xllamacpp: takes every GGUF, and large models at 4 bits.

Its slots share one KV cache. A request is handed over only when its prompt and its longest output fit what the
others leave, so the cache is never overrun.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import xllamacpp

from docmill.catalogue.errors import CatalogueError
from docmill.catalogue.fingerprint import quick_fingerprint
from docmill.catalogue.gguf_file import verify
from docmill.catalogue.local_model import ModelKind
from docmill.engine_table import engine_info
from docmill.sizing.cpu_kv_cache import kv_cache_tokens, kv_values_per_token
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

_STEP_S = 0.1
# By `optimization.quantization`: the type of keys and values, with the bytes that one takes.
_KV_TYPES = {
    "fp16": (xllamacpp.ggml_type.GGML_TYPE_F16, 2.0),
    "int8": (xllamacpp.ggml_type.GGML_TYPE_Q8_0, 34 / 32),
    "int4": (xllamacpp.ggml_type.GGML_TYPE_Q4_0, 18 / 32),
}


@dataclass(slots=True, eq=False)
class _Running:
    request: Request
    taken_at: float
    started_at: float = 0.0
    first_at: float | None = None
    cancelled: bool = False
    stopped: bool = False  # at one of the request's own stop tokens
    tokens: int = 0
    beside: list[int] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)


class LlamaCppEngine:
    """Each running request has a thread that waits in the server's blocking call.

    Option: `kv_tokens`, the size of the cache that all slots share.
    """

    def __init__(self, spec: EngineSpec) -> None:
        if spec.model.kind is not ModelKind.GGUF:
            raise ModelUnusable(f"{spec.model.path} is no GGUF file, which is what llama.cpp runs")
        try:
            verify(spec.model.path)
        except CatalogueError as error:
            raise ModelUnusable(str(error)) from error
        kv_type, kv_bytes = _KV_TYPES[spec.kv_precision]
        gpu_layers, remarks = _gpu_layers(spec)
        path = spec.model.path
        self._kv_tokens = kv_cache_tokens(
            spec.window,
            spec.slots,
            bytes_per_token=kv_values_per_token(path) * kv_bytes,
            reserved_bytes=path.stat().st_size,
            most_tokens=engine_info("llamacpp").shared_kv_tokens,
            configured=spec.options.get("kv_tokens"),
        )
        self._server = _server(spec, self._kv_tokens, kv_type, gpu_layers)
        weights = (spec.model.sha256 or quick_fingerprint(spec.model.path))[:32]
        fingerprint = f"{weights}-kv-{kv_type.name.removeprefix('GGML_TYPE_').lower()}"
        self.facts = EngineFacts("llamacpp", spec.model.name, spec.window, spec.slots, fingerprint, remarks)
        self._waiting: deque[_Running] = deque()
        self._running: dict[RequestId, _Running] = {}
        self._leaving: set[_Running] = set()  # cancelled, and still in the server until its next token
        self._ended: queue.SimpleQueue[tuple[_Running, BaseException | None]] = queue.SimpleQueue()

    @property
    def in_flight(self) -> int:
        """Requests taken and not yet finished or cancelled."""
        return len(self._waiting) + len(self._running)

    def add(self, request: Request) -> None:
        """Take a request. Raises RequestRefused."""
        check_fits(request, self.facts.context_window)
        self._waiting.append(_Running(request, time.monotonic()))

    def step(self) -> list[Completion]:
        """Start what there is room for and wait a moment; returns what has finished."""
        while self._waiting and self._has_room(self._waiting[0]):
            self._start(self._waiting.popleft())
        if not self._running and not self._waiting:
            return []
        for running in self._running.values():
            running.beside.append(len(self._running))
        finished: list[Completion] = []
        wait_s = _STEP_S
        while True:
            try:
                running, error = self._ended.get(timeout=wait_s)
            except queue.Empty:
                return finished
            wait_s = 0.0
            if running.cancelled:
                self._leaving.discard(running)
                continue
            if error is not None:
                if finished:  # theirs is done: the error can wait for the next step
                    self._ended.put((running, error))
                    return finished
                raise EngineFailed(f"llama.cpp: {error}") from error
            del self._running[running.request.id]
            finished.append(_completion(running))

    def cancel(self, request_id: RequestId) -> None:
        """Stop a request without a completion; unknown ids are ignored."""
        self._waiting = deque(r for r in self._waiting if r.request.id != request_id)
        running = self._running.pop(request_id, None)
        if running is not None:
            running.cancelled = True
            self._leaving.add(running)

    def text_so_far(self, request_id: RequestId) -> str | None:
        """What a request has written, None for unknown ids."""
        running = self._running.get(request_id)
        if running is None:
            return "" if any(waiting.request.id == request_id for waiting in self._waiting) else None
        return shown_text("".join(running.text), running.request.sampling.stop)

    def close(self) -> None:
        """Free the model."""
        for request_id in list(self._running):
            self.cancel(request_id)
        self._waiting.clear()
        self._server = None

    def _has_room(self, candidate: _Running) -> bool:
        inside = [*self._running.values(), *self._leaving]
        taken = sum(running.request.most_tokens for running in inside)
        return len(inside) < self.facts.slots and taken + candidate.request.most_tokens <= self._kv_tokens

    def _start(self, running: _Running) -> None:
        self._running[running.request.id] = running
        running.started_at = time.monotonic()
        threading.Thread(target=self._generate, args=(self._server, running), daemon=True).start()

    def _generate(self, server: Any, running: _Running) -> None:
        stop_ids = frozenset(running.request.stop_token_ids)

        def receive(part: dict[str, Any]) -> bool:
            if "choices" not in part:  # an exception raised here would be swallowed
                running.last = part
                return True
            choice = part["choices"][0]
            running.first_at = running.first_at or time.monotonic()
            tokens = part.get("__verbose", {}).get("tokens", ())
            running.tokens += len(tokens)
            running.stopped = not stop_ids.isdisjoint(tokens)
            if not running.stopped:
                running.text.append(choice["text"])
            if choice["finish_reason"] is not None:
                running.last = part
            return running.cancelled or running.stopped  # True ends the stream

        try:
            server.handle_completions(_body(running.request), receive)
            whole = running.cancelled or running.stopped or "choices" in running.last
            self._ended.put((running, None if whole else RuntimeError(f"it ended early: {running.last}")))
        except Exception as error:  # noqa: BLE001 - handed to the engine's thread
            self._ended.put((running, error))


def _gpu_layers(spec: EngineSpec) -> tuple[int, tuple[str, ...]]:
    """Layers on a GPU (-1: as many as fit), and remarks. The wheel on PyPI is built for the CPU."""
    cpu = xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU
    if all(device["type"] == cpu for device in xllamacpp.get_device_info()):
        return 0, spec.without_gpu("this build of llama.cpp")
    if spec.cuda_enabled is False:
        return 0, ()
    return (spec.cuda_layers if isinstance(spec.cuda_layers, int) else -1), ()


def _server(spec: EngineSpec, kv_tokens: int, kv_type: Any, gpu_layers: int) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(spec.model.path)
    params.n_parallel = spec.slots
    params.n_ctx = kv_tokens
    params.kv_unified = True
    params.cache_type_k = params.cache_type_v = kv_type
    params.n_gpu_layers = gpu_layers
    params.ctx_shift = False  # never forget the beginning of a prompt in silence
    params.cache_ram_mib = 0
    params.cpuparams.n_threads = spec.cpu_threads
    params.warmup = False
    params.no_perf = False
    params.verbosity = -1
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise ModelUnusable(f"llama.cpp cannot load {spec.model.path}: {error}") from error


def _body(request: Request) -> dict[str, Any]:
    sampling = request.sampling
    body: dict[str, Any] = {
        "prompt": list(request.prompt_ids),
        "max_tokens": request.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repetition_penalty,
        "repeat_last_n": len(request.prompt_ids) + request.max_tokens,  # all of it, as other engines do
        "stop": list(sampling.stop),
        "cache_prompt": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.stop_token_ids:
        body |= {"return_tokens": True, "verbose": True}  # llama.cpp knows its own end tokens, not these
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    return body


def _completion(running: _Running) -> Completion:
    request, last = running.request, running.last
    if running.stopped:
        return _completion_at_stop_token(running)
    timings, usage = last["timings"], last["usage"]
    prefill_s, decode_s = timings["prompt_ms"] / 1000, timings["predicted_ms"] / 1000
    in_server_s = time.monotonic() - running.started_at
    stopped = last["choices"][0]["finish_reason"] == "stop"
    return Completion(
        request_id=request.id,
        text=cut_at_stop("".join(running.text), request.sampling.stop),
        finish_reason=FinishReason.STOP if stopped else FinishReason.LENGTH,
        prompt_tokens=len(request.prompt_ids),
        completion_tokens=usage["completion_tokens"],
        cached_tokens=usage.get("prompt_tokens_details", {}).get("cached_tokens", 0),
        queue_s=running.started_at - running.taken_at + max(0.0, in_server_s - prefill_s - decode_s),
        prefill_s=prefill_s,
        decode_s=decode_s,
        batch_size=sum(running.beside) / max(1, len(running.beside)),
    )


def _completion_at_stop_token(running: _Running) -> Completion:
    """The stream was ended here, before the server could say what it measured: the times are those seen here."""
    request, now = running.request, time.monotonic()
    first_at = running.first_at or now
    return Completion(
        request_id=request.id,
        text=cut_at_stop("".join(running.text), request.sampling.stop),
        finish_reason=FinishReason.STOP,
        prompt_tokens=len(request.prompt_ids),
        completion_tokens=running.tokens,
        queue_s=running.started_at - running.taken_at,
        prefill_s=first_at - running.started_at,
        decode_s=now - first_at,
        batch_size=sum(running.beside) / max(1, len(running.beside)),
    )
