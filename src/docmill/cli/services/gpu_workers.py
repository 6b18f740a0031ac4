"""One worker process for each GPU of this box, kept running until a signal ends them all."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import click

from docmill.broker.child_processes import die_with_parent
from docmill.cli.services.restarts import Restarts
from docmill.engine_table import GPU_ENGINES
from docmill.sizing.gpu_devices import Gpu, NoGpu, read_gpus

log = logging.getLogger(__name__)
_STOP_S = 20.0


@dataclass(frozen=True, slots=True)
class Placement:
    """The GPUs of one worker process: several only where one model is laid over them."""

    gpus: tuple[Gpu, ...]

    @property
    def device(self) -> str:
        """The name that status and Flower show, as in gpu0 or gpu0+1."""
        return "gpu" + "+".join(str(gpu.index) for gpu in self.gpus)

    @property
    def visible_devices(self) -> str:
        """CUDA_VISIBLE_DEVICES of its process."""
        return ",".join(gpu.uuid for gpu in self.gpus)


def place(engine: str, wanted: str | None, *, is_split: bool) -> list[Placement]:
    """The workers to run here; none for an engine without GPUs, or where none can be seen and none was asked for.

    `wanted` are indices as in "0,2". Raises UsageError for a GPU that is not there.
    """
    if engine not in GPU_ENGINES:
        if wanted or is_split:
            raise click.UsageError(f"--gpus, --gpu-split and --tensor-parallel are for exllamav2, not for {engine}")
        return []
    try:
        gpus = read_gpus()
    except NoGpu as error:
        if wanted:
            raise click.UsageError(f"--gpus {wanted}: {error}") from None
        return []
    if wanted:
        gpus = _chosen(gpus, wanted)
    return [Placement(tuple(gpus))] if is_split else [Placement((gpu,)) for gpu in gpus]


def _chosen(gpus: Sequence[Gpu], wanted: str) -> list[Gpu]:
    by_index = {str(gpu.index): gpu for gpu in gpus}
    names = [name.strip() for name in wanted.split(",")]
    missing = [name for name in names if name not in by_index]
    if missing:
        raise click.UsageError(f"--gpus {wanted}: there is no GPU {missing[0]}; there are {', '.join(by_index)}")
    return [by_index[name] for name in dict.fromkeys(names)]


class _Worker:
    """One worker process, started again when it is killed; one that says why it ends is not."""

    def __init__(self, placement: Placement, arguments: Sequence[str]) -> None:
        self.placement = placement
        self._command = [sys.executable, "-m", "docmill", *arguments, "--device", placement.device]
        self._restarts = Restarts()
        self.start()

    def start(self) -> None:
        self._restarts.started()
        self.process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": self.placement.visible_devices},
            start_new_session=True,
            preexec_fn=die_with_parent,
        )

    def revive(self) -> bool:
        """Start it again if it has died. False: it will not live."""
        status = self.process.poll()
        if status is None:
            return True
        if status == 0 or not self._restarts.may_follow(status):
            log.error("the worker on %s ended with status %d", self.placement.device, status)
            return False
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        log.warning("the worker on %s %s; starting it again", self.placement.device, how)
        self.start()
        return True


def run_workers(placements: Sequence[Placement], arguments: Sequence[str], *, drain_timeout_s: float) -> int:
    """Run `docmill ARGUMENTS --device NAME` once for each placement; the exit code, 1 when none would live.

    At the end each has `drain_timeout_s` seconds, and some more, before it is killed.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    workers = [_Worker(placement, arguments) for placement in placements]
    log.info("%d workers: %s", len(workers), ", ".join(worker.placement.device for worker in workers))
    living = list(workers)
    while living and not stop.wait(0.5):
        living = [worker for worker in living if worker.revive()]
    for worker in living:
        worker.process.terminate()
    deadline = time.monotonic() + _STOP_S + drain_timeout_s
    for worker in living:
        try:
            worker.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
    return 0 if stop.is_set() else 1
