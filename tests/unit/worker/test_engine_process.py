from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from docmill.worker.engine_messages import Add, Finished, FromEngine, Heartbeat, Ready, Refused, Unusable
from docmill.worker.engine_process import EngineProcess
from docmill.worker.engines.base import PromptTooLong, Request
from docmill.worker.engines.spec import EngineSpec
from tests.unit.worker.conftest import MakeSpec

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def started(closing: ExitStack, spec: EngineSpec) -> EngineProcess:
    process = EngineProcess(spec)
    closing.callback(process.kill)
    return process


def heard(process: EngineProcess, timeout_s: float = 60.0) -> FromEngine:
    """The next message that is not a heartbeat."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        message = process.receive(1.0)
        if message is not None and not isinstance(message, Heartbeat):
            return message
    raise AssertionError("the engine says nothing")


def test_it_says_what_it_loaded_refuses_and_finishes(closing: ExitStack, make_spec: MakeSpec) -> None:
    process = started(closing, make_spec(slots=3, window=200))
    ready = heard(process)
    assert isinstance(ready, Ready)
    assert (ready.facts.engine, ready.facts.slots, ready.facts.context_window) == ("simulated", 3, 200)
    process.send(Add(Request("long", (1,) * 190, max_tokens=11)))
    refused = heard(process)
    assert isinstance(refused, Refused)
    assert isinstance(refused.error, PromptTooLong)
    assert (refused.request_id, refused.error.prompt_tokens) == ("long", 190)
    process.send(Add(Request("fits", (1,) * 190, max_tokens=10)))
    finished = heard(process)
    assert isinstance(finished, Finished)
    assert [done.request_id for done in finished.completions] == ["fits"]
    process.stop()
    with pytest.raises(EOFError):
        process.receive(5.0)
    assert process.how_it_ended() == "ended with status 0"


def test_messages_are_taken_while_a_step_is_long(closing: ExitStack, make_spec: MakeSpec) -> None:
    process = started(closing, make_spec(prefill_tokens_per_s=100))
    assert isinstance(heard(process), Ready)
    process.send(Add(Request("slow", (5,) * 9_000, max_tokens=1)))  # a step of 90 s
    sent = [Add(Request(f"r{i}", tuple(range(40_000, 49_000)), max_tokens=1)) for i in range(200)]
    assert len(pickle.dumps(sent)) > 2_000_000  # far more than a pipe holds
    assert all(process.send(message) for message in sent)
    assert process.receive(0.0) is None  # and the step is not over


def test_a_process_that_has_ended_takes_no_message_and_says_how_it_ended(
    closing: ExitStack, make_spec: MakeSpec
) -> None:
    process = started(closing, make_spec())
    assert isinstance(heard(process), Ready)
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert process.send(Add(Request("late", (1, 2), max_tokens=1))) is False
    with pytest.raises(EOFError):
        process.receive(5.0)
    assert process.how_it_ended() == "was killed by SIGKILL"


def test_the_signals_of_a_terminal_do_not_end_it(closing: ExitStack, make_spec: MakeSpec) -> None:
    process = started(closing, make_spec())
    assert isinstance(heard(process), Ready)
    os.kill(process.pid, signal.SIGINT)
    os.kill(process.pid, signal.SIGTERM)
    process.send(Add(Request("r", (1, 2), max_tokens=4)))
    assert isinstance(heard(process), Finished)


def test_an_unusable_model_is_said_in_words(closing: ExitStack, make_spec: MakeSpec) -> None:
    spec = make_spec()
    process = started(closing, EngineSpec("turbo", spec.model, spec.home))
    said = heard(process)
    assert isinstance(said, Unusable)
    assert "unknown engine 'turbo'" in said.reason


def test_files_in_the_current_directory_are_never_imported(
    closing: ExitStack, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "conflicts"
    (directory / "storage").mkdir(parents=True)
    names = (
        "cli",
        "settings",
        "worker",
        "click",
        "sitecustomize",
        "celeryconfig",
        "queue",
        "signal",
        "storage/__init__",
    )
    for name in names:
        (directory / f"{name}.py").write_text("raise SystemExit('imported from the current directory')")
    spec = make_spec()
    monkeypatch.chdir(directory)
    process = started(closing, spec)
    assert isinstance(heard(process), Ready)
    process.send(Add(Request("r", (1, 2), max_tokens=4)))
    assert isinstance(heard(process), Finished)


_PARENT = """
import sys
from pathlib import Path
from docmill.catalogue.local_model import Model, ModelKind
from docmill.worker.batcher import Batcher
from docmill.worker.engines.base import Request
from docmill.worker.engines.spec import EngineSpec

if __name__ == "__main__":
    model = Model("simulated", Path("none"), ModelKind.SIMULATED, 10_000)
    batcher = Batcher(EngineSpec("simulated", model, Path(), options={"prefill_tokens_per_s": 10}))
    batcher.start()
    print(batcher.engine_pid, flush=True)
    batcher.generate(Request("a step of minutes", (5,) * 9_000, max_tokens=1))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal")
def test_it_ends_with_its_parent_even_in_the_middle_of_a_step(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        engine = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    engine.wait(timeout=30)
    assert not engine.is_running()
