"""A host of its own: a network namespace behind a link that can be cut."""

from __future__ import annotations

import contextlib
import subprocess
from dataclasses import dataclass


@dataclass
class FarHost:
    """A network namespace, tied to this one by a link that can be cut."""

    name: str
    subnet: int

    @property
    def near(self) -> str:
        """This side's address."""
        return f"10.213.{self.subnet}.1"

    @property
    def far(self) -> str:
        """Its own."""
        return f"10.213.{self.subnet}.2"

    def open(self) -> None:
        """Make it. Raises PermissionError where that is not allowed here."""
        near, far = f"cn{self.subnet}", f"cf{self.subnet}"
        try:
            _ip("netns", "add", self.name)
            _ip("link", "add", near, "type", "veth", "peer", "name", far)
            _ip("link", "set", far, "netns", self.name)
            _ip("addr", "add", f"{self.near}/30", "dev", near)
            _ip("link", "set", near, "up")
            inside = ("netns", "exec", self.name, "ip")
            _ip(*inside, "addr", "add", f"{self.far}/30", "dev", far)
            _ip(*inside, "link", "set", far, "up")
            _ip(*inside, "link", "set", "lo", "up")
        except (OSError, subprocess.CalledProcessError) as error:
            self.close()
            raise PermissionError(f"no network namespaces here: {error}") from error

    def cut(self, *, is_cut: bool) -> None:
        """Take the link down, or up again."""
        _ip("link", "set", f"cn{self.subnet}", "down" if is_cut else "up")

    def command(self, *words: str) -> list[str]:
        """The command, run there."""
        return ["ip", "netns", "exec", self.name, *words]

    def close(self) -> None:
        """Remove it."""
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            _ip("link", "del", f"cn{self.subnet}")
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            _ip("netns", "del", self.name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)
