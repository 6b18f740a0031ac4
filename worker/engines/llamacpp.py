"""llama.cpp's server inside this process, through xllamacpp: runs every GGUF file, and large models in 4 bits.

Its slots share one KV cache. A request starts only when its prompt and its longest possible output fit into the part
that the running requests leave free, so the cache cannot overflow.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
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
)
from docmill.worker.engines.queueing_engine import QueuedRequest, QueueingEngine
from docmill.worker.engines.spec import EngineSpec

_STEP_S = 0.1
# By `optimization.quantization`: the type of keys and values, with the bytes that one takes.
_KV_TYPES = {
    "fp16": (xllamacpp.ggml_type.GGML_TYPE_F16, 2.0),
    "int8": (xllamacpp.ggml_type.GGML_TYPE_Q8_0, 34 / 32),
    "int4": (xllamacpp.ggml_type.GGML_TYPE_Q4_0, 18 / 32),
}


@dataclass(slots=True, eq=False)
class _LlamaCppRequest(QueuedRequest):
    is_cancelled: bool = False
    is_at_stop_token: bool = False  # one of the request's own
    tokens: int = 0
    text: list[str] = field(default_factory=list)
    last_part: dict[str, Any] = field(default_factory=dict)  # of the server's stream


class LlamaCppEngine(QueueingEngine[_LlamaCppRequest]):
    """Each running request has a thread that waits in the server's blocking call.

    Option: `kv_tokens`, the size of the cache that all slots share.
    """

    _request_type = _LlamaCppRequest

    def __init__(self, spec: EngineSpec) -> None:
        path = spec.model.path
        if spec.model.kind is not ModelKind.GGUF:
            raise ModelUnusable(f"{path} is not a GGUF file, the only format that llama.cpp runs")
        try:
            verify(path)
        except CatalogueError as error:
            raise ModelUnusable(str(error)) from error
        kv_type, bytes_per_value = _KV_TYPES[spec.kv_precision]
        gpu_layers, remarks = _gpu_layers(spec)
        size = kv_cache_tokens(
            spec.window,
            spec.slots,
            bytes_per_token=kv_values_per_token(path) * bytes_per_value,
            reserved_bytes=path.stat().st_size,
            most_tokens=engine_info("llamacpp").shared_kv_tokens,
            configured=spec.options.get("kv_tokens"),
        )
        self._server = _server(spec, size, kv_type, gpu_layers)
        weights = (spec.model.sha256 or quick_fingerprint(path))[:32]
        fingerprint = f"{weights}-kv-{kv_type.name.removeprefix('GGML_TYPE_').lower()}"
        facts = EngineFacts("llamacpp", spec.model.name, spec.window, spec.slots, fingerprint, remarks)
        super().__init__(facts, kv_tokens=size)
        self._leaving: set[_LlamaCppRequest] = set()  # cancelled, but in the server until its next token
        self._ended: queue.SimpleQueue[tuple[_LlamaCppRequest, BaseException | None]] = queue.SimpleQueue()

    def close(self) -> None:
        for request_id in list(self._running):
            self.cancel(request_id)
        super().close()
        self._server = None

    def _occupying(self) -> Collection[_LlamaCppRequest]:
        return [*self._running.values(), *self._leaving]

    def _start(self, queued: _LlamaCppRequest) -> None:
        threading.Thread(target=self._generate, args=(self._server, queued), daemon=True).start()

    def _advance(self) -> list[Completion]:
        """Wait until a request ends, at most a moment; then take all others that have ended."""
        finished: list[Completion] = []
        wait_s = _STEP_S
        while True:
            try:
                ended, error = self._ended.get(timeout=wait_s)
            except queue.Empty:
                return finished
            wait_s = 0.0
            if ended.is_cancelled:
                self._leaving.discard(ended)
            elif error is None:
                finished.append(_completion(ended))
            elif finished:  # return these first: the error is raised in the next step
                self._ended.put((ended, error))
                return finished
            else:
                raise EngineFailed(f"llama.cpp: {error}") from error

    def _abort(self, running: _LlamaCppRequest) -> None:
        running.is_cancelled = True
        self._leaving.add(running)

    def _text(self, running: _LlamaCppRequest) -> str:
        return "".join(running.text)

    def _generate(self, server: Any, running: _LlamaCppRequest) -> None:
        """In the request's own thread: run it in the server to its end."""
        stop_ids = frozenset(running.request.stop_token_ids)

        def receive(part: dict[str, Any]) -> bool:
            """Take a part of the stream; True ends the stream. The server would swallow an exception raised here."""
            if "choices" not in part:
                running.last_part = part
                return True
            choice = part["choices"][0]
            running.first_token_at = running.first_token_at or time.monotonic()
            tokens = part.get("__verbose", {}).get("tokens", ())
            running.tokens += len(tokens)
            running.is_at_stop_token = not stop_ids.isdisjoint(tokens)
            if not running.is_at_stop_token:
                running.text.append(choice["text"])
            if choice["finish_reason"] is not None:
                running.last_part = part
            return running.is_cancelled or running.is_at_stop_token

        try:
            server.handle_completions(_body(running.request), receive)
            is_complete = running.is_cancelled or running.is_at_stop_token or "choices" in running.last_part
            error = None if is_complete else RuntimeError(f"the stream ended early: {running.last_part}")
            self._ended.put((running, error))
        except Exception as error:  # noqa: BLE001 - raised in the engine's thread
            self._ended.put((running, error))


def _gpu_layers(spec: EngineSpec) -> tuple[int, tuple[str, ...]]:
    """The number of layers on a GPU (-1: as many as fit), and remarks. The wheel on PyPI is built for the CPU."""
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
    params.ctx_shift = False  # never drop the beginning of a prompt silently
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
        "repeat_last_n": request.most_tokens,  # the whole sequence, as in other engines
        "stop": list(sampling.stop),
        "cache_prompt": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.stop_token_ids:
        body |= {"return_tokens": True, "verbose": True}  # llama.cpp itself stops only at the model's end tokens
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    return body


def _completion(ended: _LlamaCppRequest) -> Completion:
    if ended.is_at_stop_token:  # the stream was cut here, before the server reported its timings
        return ended.completion("".join(ended.text), FinishReason.STOP, ended.tokens)
    last = ended.last_part
    timings, usage = last["timings"], last["usage"]
    prefill_s, decode_s = timings["prompt_ms"] / 1000, timings["predicted_ms"] / 1000
    in_server_s = time.monotonic() - ended.started_at
    has_stopped = last["choices"][0]["finish_reason"] == "stop"
    finish_reason = FinishReason.STOP if has_stopped else FinishReason.LENGTH
    return replace(
        ended.completion("".join(ended.text), finish_reason, usage["completion_tokens"]),
        cached_tokens=usage.get("prompt_tokens_details", {}).get("cached_tokens", 0),
        queue_s=ended.started_at - ended.queued_at + max(0.0, in_server_s - prefill_s - decode_s),
        prefill_s=prefill_s,
        decode_s=decode_s,
    )
