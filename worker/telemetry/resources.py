"""What the worker uses, looked at with a heartbeat: memory and processor time by psutil, the GPUs by their driver."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

import psutil

from docmill.storage.attempt_metrics import GeneratedText
from docmill.storage.moves.attempts import ClaimedJob, Failure, ReusedJob
from docmill.storage.moves.worker_samples import Sample
from docmill.worker.job_events import Ending
from docmill.worker.telemetry.gpu_meter import GpuMeter


class HasEngine(Protocol):
    """What `docmill.worker.batcher.Batcher` tells of its engine."""

    @property
    def engine_pid(self) -> int | None: ...


class Sampler:
    """A `JobObserver` that counts what the worker has done, and a look at what it uses."""

    def __init__(
        self,
        engine: HasEngine,
        *,
        slots: int,
        every_s: float,
        gpus: GpuMeter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._slots = slots
        self._every_s = every_s
        self._gpus = gpus
        self._clock = clock
        self._taken_at: float | None = None
        self._worker_process = psutil.Process()
        self._worker_process.cpu_percent(None)
        self._engine_process: psutil.Process | None = None
        self._counting = threading.Lock()
        self._jobs = self._prompt_tokens = self._cached_tokens = self._completion_tokens = 0

    def claimed(self, job: ClaimedJob) -> None:
        """Nothing is counted yet."""

    def reused(self, job: ReusedJob) -> None:
        """Nothing was computed."""

    def completed(self, job: ClaimedJob, generated: GeneratedText) -> None:
        with self._counting:
            self._jobs += 1
            self._prompt_tokens += generated.prompt_tokens
            self._cached_tokens += generated.cached_tokens or 0
            self._completion_tokens += generated.completion_tokens

    def ended(self, job: ClaimedJob, ending: Ending, failure: Failure | None) -> None:
        """Only what came to its end is counted."""

    def sample(self, running: int) -> Sample | None:
        """What is used now, with `running` jobs held; None where the last is younger than `every_s` (0: always)."""
        now = self._clock()
        if not self._every_s or (self._taken_at is not None and now - self._taken_at < self._every_s):
            return None
        self._taken_at = now
        engine_rss, engine_cpu = self._of_engine()
        with self._counting:
            counted = (self._jobs, self._prompt_tokens, self._cached_tokens, self._completion_tokens)
        return Sample(
            running, self._slots, self._worker_process.memory_info().rss + engine_rss,
            self._worker_process.cpu_percent(None), engine_cpu,
            self._gpus.used_bytes() if self._gpus else None,
            self._gpus.busy_percent() if self._gpus else None,
            self._gpus.power_w() if self._gpus else None,
            *counted,
        )  # fmt: skip

    def _of_engine(self) -> tuple[int, float | None]:
        """The engine process' memory and percent of a core; it may have been started again since the last look."""
        pid = self._engine.engine_pid
        try:
            if pid is None:
                self._engine_process = None
            elif self._engine_process is None or self._engine_process.pid != pid:
                self._engine_process = psutil.Process(pid)
                self._engine_process.cpu_percent(None)  # counts from here on
                return self._engine_process.memory_info().rss, None
            if self._engine_process is None:
                return 0, None
            return self._engine_process.memory_info().rss, self._engine_process.cpu_percent(None)
        except psutil.Error:
            self._engine_process = None
            return 0, None
