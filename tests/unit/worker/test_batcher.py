"""Many threads, one engine process that dies, raises, stalls, refuses and closes. The process is a real one."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace

import pytest

from docmill.worker.batcher import Batcher
from docmill.worker.engines.base import (
    Completion,
    EngineClosed,
    EngineDied,
    EngineFailed,
    ModelUnusable,
    PromptTooLong,
    Request,
    RequestCancelled,
)
from docmill.worker.engines.simulated import SimulatedEngine
from docmill.worker.engines.spec import EngineSpec
from tests.integration.conftest import wait_until
from tests.unit.worker.conftest import MakeSpec

pytestmark = pytest.mark.slow

POISON = (666, 667)
MakeBatcher = Callable[..., Batcher]


@pytest.fixture
def make_batcher() -> Iterator[MakeBatcher]:
    """Batchers that are closed when the test ends."""
    with ExitStack() as closing:

        def make(spec: EngineSpec, *, stall_s: float = 600.0, start: bool = True) -> Batcher:
            batcher = Batcher(spec, stall_s=stall_s)
            closing.callback(batcher.close)
            if start:
                batcher.start()
            return batcher

        yield make


class Threads:
    """One thread a request, as in the worker's pool."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._pool = ThreadPoolExecutor(max_workers=64)

    def generate(self, *requests: Request) -> list[Future[Completion]]:
        """Begin to generate; returns once all are in the batcher's hands."""
        before = self._batcher.in_flight
        futures = [self._pool.submit(self._batcher.generate, request) for request in requests]
        until(lambda: self._batcher.in_flight + sum(f.done() for f in futures) >= before + len(requests))
        return futures


def until(holds: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait for a condition that nothing announces."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.002)


def short(i: int) -> Request:
    return Request(f"r{i}", (100, 200, i), max_tokens=20)


def endless(i: int) -> Request:
    """At 2 tokens a second."""
    return Request(f"e{i}", (300, 400, i), max_tokens=9_000)


def expected_text(request: Request, spec: EngineSpec) -> str:
    engine = SimulatedEngine(replace(spec, options={}))
    engine.add(request)
    while True:
        for completion in engine.step():
            return completion.text


def crash_messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "restarting it" in record.getMessage()]


def test_many_threads_share_the_engine_and_each_gets_its_own_text(
    make_batcher: MakeBatcher, make_spec: MakeSpec
) -> None:
    spec = make_spec(slots=4)
    batcher = make_batcher(spec)
    requests = [short(i) for i in range(40)]
    futures = Threads(batcher).generate(*requests)
    completions = [future.result(60) for future in futures]
    assert [c.request_id for c in completions] == [r.id for r in requests]
    assert [c.text for c in completions] == [expected_text(r, spec) for r in requests]
    assert max(c.batch_size for c in completions) > 1
    assert all(c.peak_memory_bytes > 1_000_000 for c in completions)
    assert batcher.in_flight == 0


def test_only_the_request_that_crashes_the_engine_fails_and_suspects_run_alone(
    make_batcher: MakeBatcher, make_spec: MakeSpec, caplog: pytest.LogCaptureFixture
) -> None:
    spec = make_spec(die_on=POISON, decode_steps_per_s=50)
    threads = Threads(make_batcher(spec))
    others = [short(i) for i in range(3)]
    innocent = threads.generate(*others)
    (culprit,) = threads.generate(Request("culprit", (1, *POISON, 2), max_tokens=5))
    with pytest.raises(EngineDied, match="SIGKILL while it ran only this request"):
        culprit.result(60)
    assert [f.result(60).text for f in innocent] == [expected_text(r, spec) for r in others]
    assert [f.result().batch_size for f in innocent] == [1.0] * 3
    together, alone = crash_messages(caplog)
    assert "with 4 requests" in together
    assert "with 1 requests" in alone


def test_an_engine_that_raises_fails_only_the_request_it_raised_on(
    make_batcher: MakeBatcher, make_spec: MakeSpec
) -> None:
    spec = make_spec(raise_on=POISON, decode_steps_per_s=50)
    batcher = make_batcher(spec)
    threads = Threads(batcher)
    innocent = threads.generate(short(1), short(2))
    (culprit,) = threads.generate(Request("culprit", POISON, max_tokens=5))
    with pytest.raises(EngineFailed, match="asked to raise"):
        culprit.result(60)
    assert [f.result(60).text for f in innocent] == [expected_text(short(i), spec) for i in (1, 2)]
    assert batcher.generate(short(3)).text == expected_text(short(3), spec)


def test_an_engine_killed_while_idle_fails_no_request(
    make_batcher: MakeBatcher, make_spec: MakeSpec, caplog: pytest.LogCaptureFixture
) -> None:
    spec = make_spec()
    batcher = make_batcher(spec)
    for i in range(2):
        pid = batcher.engine_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):  # the batcher may have noticed it already
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert batcher.generate(short(i)).text == expected_text(short(i), spec)
    assert all("with 0 requests" in message for message in crash_messages(caplog))


class _Waits(threading.Event):
    """An event that says how long it was waited for, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0.0)
        return self.is_set()


def _is_loaded(batcher: Batcher) -> bool:
    process = batcher._supervisor._process
    return process is not None and process.is_loaded


def test_an_engine_that_dies_idle_again_and_again_is_started_ever_more_slowly(
    make_batcher: MakeBatcher, make_spec: MakeSpec
) -> None:
    batcher = make_batcher(make_spec(), start=False)
    batcher._supervisor._stopping = waits = _Waits()
    batcher.start()
    killed: set[int | None] = {None}
    for _ in range(6):
        wait_until(lambda: _is_loaded(batcher) and batcher.engine_pid not in killed, "another engine")
        killed.add(batcher.engine_pid)
        os.kill(batcher.engine_pid or 0, signal.SIGKILL)
    wait_until(lambda: len(waits.seconds) == 3, "the third wait")
    assert waits.seconds == [2.0, 4.0, 8.0]


def test_a_request_that_cannot_fit_is_refused_with_its_numbers(make_batcher: MakeBatcher, make_spec: MakeSpec) -> None:
    batcher = make_batcher(make_spec(window=100))
    with pytest.raises(PromptTooLong, match=r"90 tokens and max_tokens 20 .* 100") as refused:
        batcher.generate(Request("r", (1,) * 90, max_tokens=20))
    error = refused.value
    assert (error.prompt_tokens, error.max_tokens, error.context_window) == (90, 20, 100)
    assert batcher.generate(short(1)).text


def test_a_step_that_never_ends_is_killed_and_the_next_request_runs(
    make_batcher: MakeBatcher, make_spec: MakeSpec
) -> None:
    spec = make_spec(prefill_tokens_per_s=100)
    batcher = make_batcher(spec, stall_s=2.0)
    with pytest.raises(EngineDied, match="did not finish a step in 2 s"):
        batcher.generate(Request("stalls", (5,) * 6_000, max_tokens=5))
    assert batcher.generate(short(1)).text == expected_text(short(1), spec)


def test_a_long_idle_time_is_not_held_against_the_first_request_after_it(
    make_batcher: MakeBatcher, make_spec: MakeSpec, caplog: pytest.LogCaptureFixture
) -> None:
    batcher = make_batcher(make_spec(prefill_tokens_per_s=100), stall_s=2.0)
    time.sleep(2.1)  # idle longer than a step may take: that is what is tested
    assert batcher.generate(Request("long step", (5,) * 80, max_tokens=5)).text
    assert crash_messages(caplog) == []


def test_cancel_ends_the_wait_of_a_request_the_engine_has_not_got_yet(
    make_batcher: MakeBatcher, make_spec: MakeSpec
) -> None:
    batcher = make_batcher(make_spec(), start=False)
    (waiting,) = Threads(batcher).generate(short(1))
    batcher.cancel("r1")
    with pytest.raises(RequestCancelled, match="waited"):
        waiting.result(60)
    assert batcher.in_flight == 0


def test_cancel_ends_a_running_request_and_frees_its_slot(make_batcher: MakeBatcher, make_spec: MakeSpec) -> None:
    spec = make_spec(slots=1, decode_steps_per_s=200)
    batcher = make_batcher(spec)
    threads = Threads(batcher)
    (running,) = threads.generate(endless(1))
    (behind,) = threads.generate(short(2))
    batcher.cancel("e1")
    batcher.cancel("unknown")
    with pytest.raises(RequestCancelled, match="ran"):
        running.result(60)
    assert behind.result(60).text == expected_text(short(2), spec)


def test_cancel_ends_the_wait_of_suspects(make_batcher: MakeBatcher, make_spec: MakeSpec) -> None:
    batcher = make_batcher(make_spec(decode_steps_per_s=2))
    futures = Threads(batcher).generate(*(endless(i) for i in range(4)))
    pid = batcher.engine_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: batcher.engine_pid != pid)  # at most one of the four runs now
    for i in range(4):
        batcher.cancel(f"e{i}")
    for future in futures:
        with pytest.raises(RequestCancelled):
            future.result(60)
    assert batcher.in_flight == 0


def test_close_ends_every_wait_and_the_process(make_batcher: MakeBatcher, make_spec: MakeSpec) -> None:
    batcher = make_batcher(make_spec(slots=2, decode_steps_per_s=10))
    futures = Threads(batcher).generate(*(endless(i) for i in range(5)))
    pid = batcher.engine_pid
    assert pid is not None
    batcher.close()
    batcher.close()
    for future in futures:
        with pytest.raises(EngineClosed, match="shutting down"):
            future.result(60)
    with pytest.raises(EngineClosed):
        batcher.generate(short(1))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_close_before_the_model_is_loaded_ends_the_start_too(make_batcher: MakeBatcher, make_spec: MakeSpec) -> None:
    batcher = make_batcher(make_spec(), start=False)
    batcher.close()
    with pytest.raises(EngineClosed):
        batcher.start()


def test_a_model_that_cannot_be_used_is_said_at_the_start_and_ends_the_waits(
    make_batcher: MakeBatcher, make_spec: MakeSpec
) -> None:
    batcher = make_batcher(replace(make_spec(), engine="turbo"), start=False)
    (waiting,) = Threads(batcher).generate(short(1))
    with pytest.raises(ModelUnusable, match="unknown engine 'turbo'"):
        batcher.start()
    with pytest.raises(EngineClosed, match="turbo"):
        waiting.result(60)


def test_an_engine_that_dies_three_times_while_loading_is_given_up(
    make_batcher: MakeBatcher, make_spec: MakeSpec
) -> None:
    batcher = make_batcher(make_spec(die_on=(1, 1)), start=False)  # what it probes itself with
    with pytest.raises(EngineDied, match=r"SIGKILL 3 times while loading simulated"):
        batcher.start()
    called = threading.Event()
    batcher.on_fatal(called.set)  # late is not too late
    assert called.is_set()
    with pytest.raises(EngineDied):
        batcher.raise_if_fatal()


@pytest.mark.parametrize(
    ("broken", "error"),
    [({"options": {"die_on": (1, 1)}}, EngineDied), ({"engine": "turbo"}, ModelUnusable)],
    ids=["dies while loading", "unusable"],
)
def test_an_engine_that_cannot_be_brought_back_is_fatal_once_and_ends_every_wait(
    make_batcher: MakeBatcher, make_spec: MakeSpec, broken: dict[str, object], error: type[Exception]
) -> None:
    batcher = make_batcher(make_spec(decode_steps_per_s=2))
    batcher.raise_if_fatal()
    called = threading.Semaphore(0)
    batcher.on_fatal(called.release)
    futures = Threads(batcher).generate(endless(1), endless(2))
    supervisor = batcher._supervisor
    supervisor._spec = replace(supervisor._spec, **broken)  # type: ignore[arg-type]
    pid = batcher.engine_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    for future in futures:
        with pytest.raises(EngineClosed):
            future.result(60)
    assert called.acquire(timeout=60)
    with pytest.raises(error):
        batcher.raise_if_fatal()
    batcher.close()
    assert not called.acquire(blocking=False)


def test_a_supervisor_that_fails_ends_every_wait(make_batcher: MakeBatcher, make_spec: MakeSpec) -> None:
    batcher = make_batcher(make_spec(cannot_be_pickled=lambda: None), start=False)
    (waiting,) = Threads(batcher).generate(short(1))
    with pytest.raises(EngineDied, match="supervisor failed"):
        batcher.start()
    with pytest.raises(EngineClosed, match="supervisor failed"):
        waiting.result(60)
    with pytest.raises(EngineClosed):
        batcher.generate(short(2))
