"""Which requests run, and what a crash of the engine does to them. The engine is a list of the messages sent to it."""

from __future__ import annotations

import pytest

from docmill.worker.engine_messages import Add, Cancel, ToEngine
from docmill.worker.engine_supervisor import Crashed
from docmill.worker.engines.base import (
    Completion,
    EngineClosed,
    EngineDied,
    EngineFailed,
    FinishReason,
    Request,
    RequestCancelled,
)
from docmill.worker.request_queue import RequestQueue

CRASH = Crashed("was killed by SIGKILL")


class Engine:
    """Records what is sent; accepts nothing while it is not ready."""

    def __init__(self) -> None:
        self.is_ready = True
        self.sent: list[ToEngine] = []

    def send(self, message: ToEngine) -> bool:
        if self.is_ready:
            self.sent.append(message)
        return self.is_ready

    def taken(self) -> list[str]:
        """The ids of the requests sent since the last call."""
        ids = [message.request.id for message in self.sent if isinstance(message, Add)]
        self.sent.clear()
        return ids


def request(name: str) -> Request:
    return Request(name, (1, 2), max_tokens=5)


def completion(name: str) -> Completion:
    return Completion(request_id=name, text="t", finish_reason=FinishReason.STOP, prompt_tokens=2, completion_tokens=1)


def test_requests_wait_until_an_engine_is_ready_and_keep_their_order() -> None:
    engine = Engine()
    engine.is_ready = False
    queue = RequestQueue(engine.send)
    for name in "abc":
        queue.add(request(name))
    engine.is_ready = True
    queue.engine_is_ready()
    assert engine.taken() == ["a", "b", "c"]
    assert len(queue) == 3


def test_suspects_run_one_at_a_time_before_everything_else_and_the_guilty_one_fails() -> None:
    engine = Engine()
    queue = RequestQueue(engine.send)
    outcomes = {name: queue.add(request(name)) for name in "abc"}
    assert engine.taken() == ["a", "b", "c"]
    queue.engine_crashed(CRASH)
    outcomes["d"] = queue.add(request("d"))
    assert engine.taken() == ["a"]
    queue.finish("a", completion("a"))
    assert engine.taken() == ["b"]
    queue.engine_crashed(CRASH)
    with pytest.raises(EngineDied, match="SIGKILL while it ran only this request"):
        outcomes["b"].result(0)
    queue.engine_is_ready()
    assert engine.taken() == ["c"]
    queue.finish("c", completion("c"))
    assert engine.taken() == ["d"]
    assert not outcomes["d"].done()


def test_an_engine_that_raised_fails_its_only_request_with_another_error() -> None:
    queue = RequestQueue(Engine().send)
    outcome = queue.add(request("a"))
    queue.engine_crashed(Crashed("raised: a bad kernel", has_raised=True))
    with pytest.raises(EngineFailed, match="a bad kernel"):
        outcome.result(0)


def test_cancelling_the_active_suspect_lets_the_next_one_run() -> None:
    engine = Engine()
    queue = RequestQueue(engine.send)
    outcomes = [queue.add(request(name)) for name in "ab"]
    queue.engine_crashed(CRASH)
    queue.engine_is_ready()
    engine.sent.clear()
    queue.cancel("a")
    assert engine.sent == [Cancel("a"), Add(request("b"))]
    with pytest.raises(RequestCancelled):
        outcomes[0].result(0)
    queue.finish("a", completion("a"))  # too late: it is ignored
    assert len(queue) == 1


def test_closing_ends_every_request_and_refuses_new_ones() -> None:
    queue = RequestQueue(Engine().send)
    outcomes = [queue.add(request(name)) for name in "ab"]
    queue.close(EngineClosed("shutting down"))
    queue.close(EngineClosed("again"))
    for outcome in outcomes:
        with pytest.raises(EngineClosed, match="shutting down"):
            outcome.result(0)
    with pytest.raises(EngineClosed, match="shutting down"):
        queue.add(request("c"))
    assert (queue.is_closed, len(queue)) == (True, 0)
