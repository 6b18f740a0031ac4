"""`docmill status --watch` on a real terminal, and without one."""

from __future__ import annotations

import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pexpect
import pyte
import pytest

from tests.integration.conftest import SLOW, Cluster, wait_until

WATCH = ["-m", "docmill", "status", "--watch"]
ROOT = Path(__file__).parents[2]


@dataclass
class Terminal:
    """A command on a terminal of its own, and what one would see there."""

    child: pexpect.spawn[str]
    screen: pyte.Screen
    stream: pyte.Stream

    def text(self) -> str:
        try:
            while True:
                self.stream.feed(self.child.read_nonblocking(65536, timeout=0.05))
        except (pexpect.TIMEOUT, pexpect.EOF):
            return "\n".join(self.screen.display)

    def shows(self, *words: str) -> bool:
        text = self.text()
        return all(word in text for word in words)

    def resize(self, rows: int, columns: int) -> None:
        self.child.setwinsize(rows, columns)
        self.screen.resize(rows, columns)
        self.screen.reset()

    def reads_lines_and_echoes(self) -> bool:
        flags: int = termios.tcgetattr(self.child.child_fd)[3]
        return bool(flags & termios.ICANON) and bool(flags & termios.ECHO)


@pytest.fixture
def terminal(cluster: Cluster) -> Iterator[Terminal]:
    screen = pyte.Screen(100, 30)
    # Either of these would be believed instead of the terminal, and they are set under pytest-xdist.
    environment = {name: value for name, value in cluster.environment.items() if name not in ("COLUMNS", "LINES")}
    child = pexpect.spawn(
        sys.executable, WATCH, dimensions=(30, 100), encoding="utf-8", timeout=60, cwd=str(ROOT),
        env={**environment, "TERM": "xterm-256color"},  # type: ignore[arg-type]
    )  # fmt: skip
    yield Terminal(child, screen, pyte.Stream(screen))
    child.close(force=True)


@pytest.mark.parametrize("leave", ["q", "SIGTERM"])
def test_the_view_follows_the_work_fits_the_terminal_and_leaves_it_as_it_was(
    cluster: Cluster, terminal: Terminal, leave: str
) -> None:
    wait_until(lambda: terminal.shows("no batch is active", "q quits"), "the empty view")
    assert not terminal.reads_lines_and_echoes()
    cluster.start(engine=SLOW)
    batch_id = cluster.submit(cluster.documents(60, words=60))  # longer than the test
    name = wait_until(lambda: cluster.rows("SELECT name FROM workers"), "the worker")[0][0]
    wait_until(
        lambda: terminal.shows(batch_id, "in_progress", "/60 documents", name, "4/4"), "the batch and its worker"
    )
    wait_until(lambda: terminal.shows("tokens/s", "left"), "a rate and the time left")
    terminal.resize(20, 66)
    wait_until(lambda: terminal.shows(batch_id, "q quits"), "the view in the smaller terminal")
    if leave == "q":
        terminal.child.send("q")
    else:
        terminal.child.kill(signal.SIGTERM)
    wait_until(lambda: not terminal.text() or not terminal.child.isalive(), "the view to end")
    assert terminal.child.exitstatus == (0 if leave == "q" else 128 + signal.SIGTERM)
    assert terminal.reads_lines_and_echoes()


def test_without_a_terminal_it_writes_lines_until_the_batch_has_ended(cluster: Cluster) -> None:
    batch_id = cluster.submit(cluster.documents(2, words=20))
    with subprocess.Popen(
        [sys.executable, *WATCH, batch_id], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
        env=cluster.environment, cwd=ROOT,
    ) as watching:  # fmt: skip
        assert watching.stdout is not None
        assert watching.stdout.readline() == f"{batch_id} in_progress: 0/2 jobs, 0/2 documents\n"
        cluster.start()
        rest = watching.stdout.read()
        assert watching.wait() == 0
    assert f"{batch_id} completed: 2/2 jobs, 2/2 documents, tokens/s" in rest
    assert "\x1b" not in rest
