from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

import psutil
import pytest

from docmill.storage.attempt_metrics import GeneratedText
from docmill.storage.moves.attempts import ClaimedJob
from docmill.worker.heartbeat import Heartbeat
from docmill.worker.telemetry.resources import ResourceSampler
from tests.unit.worker.conftest import LEASE_S, Stored

EVERY_S = 10.0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Engine:
    """A process that stands where the engine's does."""

    engine_pid: int | None


@pytest.fixture
def clock() -> Clock:
    return Clock()


def sampler(clock: Clock, pid: int | None = None, every_s: float = EVERY_S) -> ResourceSampler:
    return ResourceSampler(Engine(pid), slots=4, every_s=every_s, clock=clock)


def finish(observer: ResourceSampler, stored: Stored, index: int) -> None:
    job = stored.jobs().claim(stored.job_ids[index])
    assert isinstance(job, ClaimedJob)
    observer.completed(
        job, GeneratedText(text="a", finish_reason="stop", prompt_tokens=100, cached_tokens=40, completion_tokens=20)
    )


def test_the_memory_is_that_of_worker_and_engine(clock: Clock) -> None:
    taken = sampler(clock, os.getpid()).sample(2)
    assert taken is not None
    own = psutil.Process().memory_info().rss
    assert taken.rss_bytes == pytest.approx(2 * own, rel=0.1)
    assert (taken.running, taken.slots) == (2, 4)
    assert (taken.vram_bytes, taken.gpu_percent, taken.power_w) == (None, None, None)


def test_at_most_one_sample_in_so_many_seconds(clock: Clock) -> None:
    taken = sampler(clock)
    times = []
    for second in range(35):
        clock.now = float(second)
        if taken.sample(0) is not None:
            times.append(second)
    assert times == [0, 10, 20, 30]


def test_no_seconds_mean_no_samples(clock: Clock) -> None:
    assert sampler(clock, every_s=0).sample(1) is None


def test_an_engine_that_died_or_was_started_again_is_no_trouble(clock: Clock) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    watched = sampler(clock, ended.pid)
    rss = []
    for pid in (ended.pid, None, os.getpid(), os.getpid()):
        clock.now += EVERY_S
        watched._batcher.engine_pid = pid  # type: ignore[misc]
        taken = watched.sample(0)
        assert taken is not None
        rss.append((taken.rss_bytes > 1.5 * psutil.Process().memory_info().rss, taken.engine_cpu_percent is not None))
    assert rss == [(False, False), (False, False), (True, False), (True, True)]


def test_heartbeats_store_what_the_worker_has_done_so_far(stored: Stored, clock: Clock) -> None:
    taken = sampler(clock, os.getpid())
    workers = stored.workers()
    workers.register(slots=4)
    heartbeat = Heartbeat(stored.jobs(), workers, lambda _: None, lease_s=LEASE_S, sample=taken.sample)
    finish(taken, stored, 0)
    heartbeat.beat()
    finish(taken, stored, 1)
    heartbeat.beat()
    clock.now = EVERY_S
    heartbeat.beat()
    rows = stored.rows("SELECT worker, running, jobs, prompt_tokens, cached_tokens, completion_tokens "
                       "FROM worker_samples ORDER BY at")  # fmt: skip
    common = {"worker": "host/cpu-1", "running": 0}
    assert rows == [
        common | {"jobs": 1, "prompt_tokens": 100, "cached_tokens": 40, "completion_tokens": 20},
        common | {"jobs": 2, "prompt_tokens": 200, "cached_tokens": 80, "completion_tokens": 40},
    ]
