"""Reads single keys from the terminal and notices changes of its size; restores the terminal at the end."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNAL_EXIT = 128


class Keys:
    """The keys that are pressed. Created by `single_keys`."""

    def __init__(self, keyboard: int | None, woken: int) -> None:
        self._keyboard = keyboard
        self._woken = woken

    def wait(self, timeout_s: float) -> str:
        """The key that was pressed; "" after `timeout_s` seconds or when the terminal's size has changed."""
        sources = [self._woken] if self._keyboard is None else [self._keyboard, self._woken]
        ready, _, _ = select.select(sources, [], [], timeout_s)
        if self._woken in ready:
            os.read(self._woken, 1024)
        if self._keyboard is None or self._keyboard not in ready:
            return ""
        pressed = os.read(self._keyboard, 32)
        if not pressed:  # the terminal is gone
            return "q"
        return pressed.decode("ascii", "replace")[:1]


@contextmanager
def single_keys() -> Iterator[Keys]:
    """Read keys without echo while the block runs. The terminal is restored however it ends, also by SIGTERM.

    If standard input is not a terminal, no keys are read.
    """
    keyboard = sys.stdin.fileno() if sys.stdin.isatty() else None
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    handlers = {
        signal.SIGWINCH: signal.signal(signal.SIGWINCH, lambda *_: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, _exit),
        signal.SIGHUP: signal.signal(signal.SIGHUP, _exit),
    }
    before_fd = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    before = termios.tcgetattr(keyboard) if keyboard is not None else None
    try:
        if keyboard is not None:
            tty.setcbreak(keyboard)
        yield Keys(keyboard, woken)
    finally:
        if keyboard is not None and before is not None:
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        signal.set_wakeup_fd(before_fd)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(woken)
        os.close(wake)


def _exit(number: int, _frame: FrameType | None) -> None:
    sys.exit(_SIGNAL_EXIT + number)
