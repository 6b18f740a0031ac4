"""Sample what a worker uses: memory and processor time from psutil, GPU figures from the driver."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import psutil

from docmill.storage.attempt_metrics import GeneratedText
from docmill.storage.moves.attempts import ClaimedJob
from docmill.storage.moves.workers import Sample
from docmill.worker.batcher import Batcher
from docmill.worker.job_events import JobObserver
from docmill.worker.telemetry.gpu_meter import GpuMeter


class ResourceSampler(JobObserver):
    """Counts completed work and takes a sample every `every_s` seconds; 0 takes none."""

    def __init__(
        self,
        batcher: Batcher,
        *,
        slots: int,
        every_s: float,
        gpus: GpuMeter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._batcher = batcher
        self._slots = slots
        self._every_s = every_s
        self._gpus = gpus
        self._clock = clock
        self._sampled_at: float | None = None
        self._worker_process = psutil.Process()
        self._worker_process.cpu_percent(None)
        self._engine_process: psutil.Process | None = None
        self._lock = threading.Lock()
        self._jobs = self._prompt_tokens = self._cached_tokens = self._completion_tokens = 0

    def completed(self, job: ClaimedJob, generated: GeneratedText) -> None:
        with self._lock:
            self._jobs += 1
            self._prompt_tokens += generated.prompt_tokens
            self._cached_tokens += generated.cached_tokens or 0
            self._completion_tokens += generated.completion_tokens

    def sample(self, running: int) -> Sample | None:
        """The current usage, with `running` jobs held. None if the last sample is younger than `every_s`."""
        now = self._clock()
        if not self._every_s or (self._sampled_at is not None and now - self._sampled_at < self._every_s):
            return None
        self._sampled_at = now
        engine_rss, engine_cpu_percent = self._engine_usage()
        with self._lock:
            return Sample(
                running=running,
                slots=self._slots,
                rss_bytes=self._worker_process.memory_info().rss + engine_rss,
                worker_cpu_percent=self._worker_process.cpu_percent(None),
                engine_cpu_percent=engine_cpu_percent,
                vram_bytes=self._gpus.used_bytes() if self._gpus else None,
                gpu_percent=self._gpus.busy_percent() if self._gpus else None,
                power_w=self._gpus.power_w() if self._gpus else None,
                jobs=self._jobs,
                prompt_tokens=self._prompt_tokens,
                cached_tokens=self._cached_tokens,
                completion_tokens=self._completion_tokens,
            )

    def _engine_usage(self) -> tuple[int, float | None]:
        """The engine's memory in bytes, and its percent of a core since the last sample of the same process."""
        pid = self._batcher.engine_pid
        try:
            if pid is None:
                return 0, None
            if self._engine_process is None or self._engine_process.pid != pid:
                self._engine_process = psutil.Process(pid)
                self._engine_process.cpu_percent(None)  # starts the measurement
                return self._engine_process.memory_info().rss, None
            return self._engine_process.memory_info().rss, self._engine_process.cpu_percent(None)
        except psutil.Error:
            self._engine_process = None
            return 0, None
