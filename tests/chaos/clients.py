"""Clients of a campaign: each submits one batch by the real command, is killed, tries again, cancels, pauses."""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.chaos.cluster import Cluster
from tests.chaos.schedule import BatchPlan

_WORDS = ("river", "stone", "winter", "letter", "copper", "garden", "market", "signal", "harbour", "engine", "window")
_AGAIN_S = 0.5
_COMMAND_S = 90.0  # a command that takes longer hangs
ENDED = ("completed", "cancelled", "expired", "failed")


def write_documents(folder: Path, first: int, count: int, words: int) -> list[Path]:
    """Files of text, each number another."""
    folder.mkdir(exist_ok=True)
    paths = []
    for number in range(first, first + count):
        text = " ".join(f"{_WORDS[(number + at) % len(_WORDS)]}{number}" for at in range(words))
        path = folder / f"{number:04}.txt"
        path.write_text(f"Document {number}. {text}.")
        paths.append(path)
    return paths


@dataclass
class Client:
    """Carries out one batch's plan in a thread. `batch_id` is what the successful submit printed."""

    number: int
    plan: BatchPlan
    cluster: Cluster
    began_at: float
    submits: int = 0
    kills: int = 0
    batch_id: str | None = None
    is_over: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Begin; `is_over` is set when nothing is left to do."""
        threading.Thread(target=self._run, name=f"client-{self.number}", daemon=True).start()

    @property
    def label(self) -> str:
        """What its batches are known by in the database."""
        return f"client-{self.number}"

    @property
    def paths(self) -> list[Path]:
        """What it submits, in this order."""
        words = 100 if self.cluster.campaign.engine == "simulated" else 60
        return write_documents(self.cluster.home / "documents", self.plan.first, self.plan.documents, words)

    @property
    def hashes(self) -> list[str]:
        """SHA-256 of its texts."""
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in self.paths]

    def _run(self) -> None:
        try:
            self._sleep_until(self.plan.at_s)
            while self.batch_id is None:
                self._submit()
            submitted_at = time.monotonic() - self.began_at
            if self.plan.cancelled_after_s is not None:
                self._sleep_until(submitted_at + self.plan.cancelled_after_s)
                self._tell("cancel")
            if self.plan.paused_after_s is not None:
                self._sleep_until(submitted_at + self.plan.paused_after_s)
                self._tell("pause")
                time.sleep(self.plan.paused_for_s)
                self._tell("resume")
        except Exception as error:  # noqa: BLE001 - a thread's end is told, whatever it was
            self.cluster.complaints.append(f"{self.label}: {type(error).__name__}: {error}")
        finally:
            self.is_over.set()

    def _submit(self) -> None:
        self.submits += 1
        printed = self.cluster.home / f"{self.label}.out"
        process = self.cluster.command("submit", *self._options(), *map(str, self.paths), out=printed)
        if self.plan.dies_after is not None and not self.kills and self._die(process):
            return
        if _exit_code(process) == 0:
            self.batch_id = printed.read_text().split()[0]
        else:
            time.sleep(_AGAIN_S)

    def _options(self) -> list[str]:
        length = "40" if self.cluster.campaign.engine == "simulated" else "12"
        options = ["--quiet", "--metadata", f"chaos={self.label}", "--priority", str(self.plan.priority)]
        options += ["--chunk-tokens", "128", "--summary-tokens", length, "--max-tokens", length]
        options += ["--temperature", "0"]
        if not self.plan.reuse:
            options.append("--no-reuse")
        if self.plan.keyed:
            options += ["--idempotency-key", self.label]
        if self.plan.deadline_s is not None:
            options += ["--deadline", f"{self.plan.deadline_s:g}s"]
        return options

    def _die(self, process: BaseProcess) -> bool:
        """Kill it when enough documents are stored. False: it was done before."""
        while process.is_alive():
            stored = self.cluster.rows(
                "SELECT count(*) AS n FROM documents d JOIN batches b ON b.id = d.batch_id "
                "WHERE CAST(b.metadata AS TEXT) LIKE :label",
                label=f'%"{self.label}"%',
            )
            if stored and stored[0].n > (self.plan.dies_after or 0):
                process.kill()
                process.join()
                self.kills += 1
                return True
            time.sleep(0.05)
        return False

    def _tell(self, command: str) -> None:
        """Call a command about the batch until it is done, or the batch has ended."""
        while True:
            process = self.cluster.command(command, str(self.batch_id))
            if _exit_code(process) == 0:
                return
            state = self.cluster.rows("SELECT state FROM batches WHERE id = :b", b=self.batch_id)
            if state and state[0].state in (*ENDED, "finalizing"):
                return
            time.sleep(_AGAIN_S)

    def _sleep_until(self, at_s: float) -> None:
        time.sleep(max(0.0, self.began_at + at_s - time.monotonic()))


def _exit_code(process: BaseProcess) -> int | None:
    """Wait for it. Raises TimeoutError when it hangs."""
    process.join(_COMMAND_S)
    if process.is_alive():
        process.kill()
        raise TimeoutError(f"a command did not end within {_COMMAND_S:g} s")
    return process.exitcode
