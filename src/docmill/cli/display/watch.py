"""`docmill status --watch`: the view that follows batches, workers and queues; plain lines where nobody looks."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TextIO

import click
from rich.console import Console
from rich.live import Live

from docmill.cli.display.live_view import Load, Snapshot, WatchedBatch, drawn, plain
from docmill.cli.display.terminal import single_keys
from docmill.insight.eta import Finish, estimate, windows_of
from docmill.producer.composition import Backend
from docmill.settings.defaults import RECENT_S
from docmill.storage.errors import StorageError
from docmill.storage.reads.batch_status import BatchStatus
from docmill.storage.reads.live_status import FinishedAttempt, LiveStatus
from docmill.storage.states import JobState

_REFRESH_S = 1.0
_PLAIN_S = 5.0
_BATCHES = 8
_MEMORY_S = 1200.0  # where jobs are so slow that two minutes say nothing
_FEW = 24  # jobs that end within RECENT_S
_OVERLAP_S = 5.0  # an attempt is stamped before it is committed


def watch(backend: Backend, batch_id: str | None) -> None:
    """Follow one batch until it has ended, or all until `q` is pressed, drawn on standard output."""
    watcher = Watcher(backend, batch_id)
    console = Console(highlight=False)
    with single_keys() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        snapshot = Snapshot((), ())
        while not watcher.has_ended:
            snapshot = watcher.look(snapshot)
            live.update(drawn(snapshot), refresh=True)
            until = time.monotonic() + _REFRESH_S
            while (left_s := until - time.monotonic()) > 0:
                key = keys.wait(left_s)
                if key in ("q", "Q"):
                    return
                live.refresh()


def watch_plainly(backend: Backend, batch_id: str, out: TextIO) -> None:
    """A line when something has changed, at most every five seconds, until the batch has ended."""
    watcher = Watcher(backend, batch_id)
    said, said_at = "", 0.0
    snapshot = Snapshot((), ())
    while not watcher.has_ended:
        snapshot = watcher.look(snapshot)
        if snapshot.trouble:
            click.echo(snapshot.trouble, err=True)
        for batch in snapshot.batches:
            line = plain(batch)
            if line != said and (time.monotonic() - said_at >= _PLAIN_S or watcher.has_ended):
                click.echo(line, file=out)
                said, said_at = line, time.monotonic()
        if not watcher.has_ended:
            time.sleep(_REFRESH_S)


class Watcher:
    """Takes snapshots. Remembers the attempts of the last minutes, so that each is read from the database once."""

    def __init__(self, backend: Backend, batch_id: str | None) -> None:
        self._reports = backend.reports
        self._live = LiveStatus(backend.database)
        self._batch_id = batch_id
        self._recent: dict[tuple[int, int], FinishedAttempt] = {}
        self._read_until: dict[str, float] = {}  # by model
        self.has_ended = False

    def look(self, last: Snapshot) -> Snapshot:
        """How things are now; where the database does not answer, how they were, and that."""
        try:
            return self._look()
        except StorageError as error:
            return Snapshot(last.batches, last.workers, last.loads, last.queues, last.at, str(error))

    def _look(self) -> Snapshot:
        if self._batch_id is None:
            batches = self._live.at_work(_BATCHES)
        else:
            batches = [self._reports.batch(self._batch_id)]
            self.has_ended = batches[0].state.is_terminal
        workers = self._reports.workers()
        now = self._live.now()
        self._remember({batch.model for batch in batches} | {worker.model for worker in workers}, now)
        return Snapshot(
            batches=[self._batch(batch, now) for batch in batches],
            workers=workers,
            loads={worker.name: self._load_of_worker(worker.name, worker.started_at, now) for worker in workers},
            queues=self._live.queues(),
            at=now,
        )

    def _remember(self, models: Iterable[str], now: float) -> None:
        for model in models:
            since = self._read_until.get(model, now - _MEMORY_S)
            for attempt in self._live.finished_since([model], since - _OVERLAP_S):
                self._recent[attempt.job_id, attempt.epoch] = attempt
            self._read_until[model] = now
        if any(attempt.finished_at < now - _MEMORY_S for attempt in self._recent.values()):
            self._recent = {k: a for k, a in self._recent.items() if a.finished_at >= now - _MEMORY_S}

    def _batch(self, status: BatchStatus, now: float) -> WatchedBatch:
        began_at = status.in_progress_at or status.created_at
        pace = _pace_of([a for a in self._recent.values() if a.batch_id == status.id], began_at, now)
        used = status.prompt_tokens + status.completion_tokens
        worked_s = (status.ended_at or now) - began_at
        done = status.jobs_by_state.get(JobState.SUCCEEDED, 0)
        left = (status.jobs_total - status.jobs_ended) * used / done if done else 0.0
        running = not status.state.is_terminal
        return WatchedBatch(
            status=status,
            now=pace.load if running else Load(),
            average_per_s=used / worked_s if used and worked_s > 0 else None,
            eta=estimate(pace.rates, pace.window_s, left) if running and left else None,
            failures=self._live.failures(status.id) if status.jobs_by_state.get(JobState.FAILED) else (),
        )

    def _load_of_worker(self, name: str, started_at: float, now: float) -> Load:
        return _pace_of([a for a in self._recent.values() if a.worker == name], started_at, now).load


@dataclass(frozen=True, slots=True)
class _Pace:
    rates: list[float]
    window_s: float
    load: Load


def _pace_of(attempts: list[FinishedAttempt], not_before: float, now: float) -> _Pace:
    """Over the last two minutes, or over twenty where few jobs end in two."""
    recent = [attempt for attempt in attempts if attempt.finished_at > now - RECENT_S]
    span_s = RECENT_S if len(recent) >= _FEW else _MEMORY_S
    used = recent if len(recent) >= _FEW else attempts
    if not used:
        return _Pace([], 1.0, Load())
    since = max(not_before, now - span_s, min(attempt.started_at for attempt in used))
    rates = windows_of([Finish(a.finished_at, a.prompt_tokens + a.completion_tokens) for a in used], since, now)
    told = [attempt for attempt in used if attempt.cached_tokens is not None]
    prompt = sum(attempt.prompt_tokens for attempt in told)
    load = Load(
        tokens_per_s=sum(rates) / len(rates) if rates else None,
        cached=sum(attempt.cached_tokens or 0 for attempt in told) / prompt if prompt else None,
        peak_memory_bytes=max(attempt.peak_memory_bytes for attempt in used),
    )
    return _Pace(rates, (now - since) / max(1, len(rates)), load)
