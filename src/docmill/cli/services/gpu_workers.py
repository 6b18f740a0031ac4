"""One worker process for each GPU of this machine, kept running until a signal ends them all."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import click

from docmill.cli.services.child_service import ChildService, stop_all
from docmill.cli.services.signals import stop_event
from docmill.engine_table import GPU_ENGINES
from docmill.sizing.gpu_devices import Gpu, NoGpu, read_gpus

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Placement:
    """The GPUs of one worker process: several only when one model is split over them."""

    gpus: tuple[Gpu, ...]

    @property
    def device(self) -> str:
        """The name that status and Flower show, such as gpu0 or gpu0+1."""
        return "gpu" + "+".join(str(gpu.index) for gpu in self.gpus)

    @property
    def visible_devices(self) -> str:
        """The value of CUDA_VISIBLE_DEVICES for its process."""
        return ",".join(gpu.uuid for gpu in self.gpus)


def place(engine: str, wanted: str | None, *, is_split: bool) -> list[Placement]:
    """The workers to run on this machine's GPUs. Empty for an engine of the CPU, or if no GPU is found.

    `wanted` selects GPUs by index, such as "0,2". Raises UsageError if one of them is not there.
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


def run_workers(placements: Sequence[Placement], arguments: Sequence[str], *, drain_timeout_s: float) -> int:
    """Run `docmill ARGUMENTS --device NAME` for each placement until a signal; the exit code, 1 when all have failed.

    A worker that is killed is started again. At the end, each has `drain_timeout_s` seconds more than usual.
    """
    stop = stop_event()
    workers = [
        ChildService(
            placement.device,
            [*arguments, "--device", placement.device],
            {"CUDA_VISIBLE_DEVICES": placement.visible_devices},
        )
        for placement in placements
    ]
    for worker in workers:
        worker.start()
    log.info("%d workers: %s", len(workers), ", ".join(worker.name for worker in workers))
    while workers and not stop.wait(0.5):
        workers = [worker for worker in workers if _keep_running(worker)]
    stop_all(workers, drain_timeout_s)
    return 0 if stop.is_set() else 1


def _keep_running(worker: ChildService) -> bool:
    """Start a worker again that was killed. False when it has ended for good."""
    status = worker.exit_status
    if status is None:
        return True
    if status == 0 or not worker.restart_if_ended():
        log.error("the worker on %s ended with status %d", worker.name, status)
        return False
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    log.warning("the worker on %s %s and was started again", worker.name, how)
    return True
