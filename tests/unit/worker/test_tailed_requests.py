"""Which text of watched requests the engine process sends."""

from __future__ import annotations

from docmill.worker.engine_messages import TextWritten, WatchText
from docmill.worker.engines.base import Request, shown_text
from docmill.worker.engines.simulated import SimulatedEngine
from docmill.worker.tailed_requests import TailedRequests
from tests.unit.worker.conftest import MakeSpec


class CountingEngine(SimulatedEngine):
    """Counts how often it is asked for a text."""

    asked = 0

    def text_so_far(self, request_id: str) -> str | None:
        self.asked += 1
        return super().text_so_far(request_id)


def engine_with(make_spec: MakeSpec, *ids: str) -> CountingEngine:
    engine = CountingEngine(make_spec(decode_steps_per_s=100_000))
    for number, request_id in enumerate(ids):
        engine.add(Request(request_id, (5 + number, 6), max_tokens=200))
    return engine


def new_text(tailed: TailedRequests, engine: CountingEngine, now: float) -> list[TextWritten]:
    engine.step()
    return list(tailed.new_text(engine, now))


def test_an_unwatched_engine_is_never_asked(make_spec: MakeSpec) -> None:
    engine, tailed = engine_with(make_spec, "1-1"), TailedRequests()
    assert [new_text(tailed, engine, float(at)) for at in range(10)] == [[]] * 10
    assert engine.asked == 0


def test_pieces_follow_one_another_without_gap_or_overlap(make_spec: MakeSpec) -> None:
    engine, tailed = engine_with(make_spec, "1-1", "2-1"), TailedRequests()
    tailed.watch(WatchText("1-1", have=0), now=0.0)
    pieces = [piece for at in range(1, 40) for piece in new_text(tailed, engine, at / 8)]
    assert len(pieces) > 5
    assert {piece.request_id for piece in pieces} == {"1-1"}
    text = ""
    for piece in pieces:
        assert piece.start == len(text)
        text += piece.text
    assert text == engine.text_so_far("1-1")


def test_a_second_watcher_gets_what_it_lacks_and_the_watch_ends_when_no_one_asks(make_spec: MakeSpec) -> None:
    engine, tailed = engine_with(make_spec, "1-1"), TailedRequests()
    tailed.watch(WatchText("1-1", have=0), now=0.0)
    (first,) = new_text(tailed, engine, 1.0)
    tailed.watch(WatchText("1-1", have=0), now=1.5)
    (again,) = new_text(tailed, engine, 2.0)
    assert (again.start, again.text.startswith(first.text)) == (0, True)
    assert new_text(tailed, engine, 7.0) == []
    asked = engine.asked
    assert new_text(tailed, engine, 8.0) == []
    assert engine.asked == asked


def test_what_may_still_be_cut_is_not_shown() -> None:
    assert shown_text("one END two", ["END"]) == "one "
    assert shown_text("one EN", ["END", "x"]) == "one "
    assert shown_text("one E", ["END", "eE", "n"]) == "o"
    assert shown_text("caf\ufffd\ufffd", []) == "caf"
    assert shown_text("whole", ["END"]) == "whole"
