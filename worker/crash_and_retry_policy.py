"""What happens after a failure: is a job retried or failed, and is a crashed engine restarted or given up?

A job: an attempt that fails is retried after a delay, up to `max_attempts`; a job under which the engine crashed
`poison_deaths` times (3 by default) is poison and fails. `docmill.worker.run_job` acts on these decisions.

An engine: a crashed engine is restarted, at first immediately, after repeated crashes with a growing delay; after three
crashes in a row while the model loads, the worker gives up. `docmill.worker.engine_supervisor` acts on these.

Which requests are suspected after a crash, and how the guilty one is found: `docmill.worker.request_queue`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from docmill.settings.defaults import Worker
from docmill.worker.engines.base import EngineDied, RequestRefused

_DEFAULTS = Worker()


@dataclass(frozen=True, slots=True)
class Retry:
    """Queue the job again, not before `delay_s` seconds from now."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Fail the job permanently; `kind` is the error's kind in its row and in the metrics."""

    kind: str


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Decides about jobs. The delay doubles from `base_s` to `max_s` seconds, with jitter so that jobs spread out.

    A request that the engine refuses is never retried. Engine crashes count only towards `poison_deaths`, other
    failures only towards `max_attempts`.
    """

    max_attempts: int = _DEFAULTS.max_attempts
    poison_deaths: int = _DEFAULTS.poison_deaths
    base_s: float = 1.0
    max_s: float = 60.0

    def decide(self, error: Exception, failures: int, deaths: int = 0) -> Retry | GiveUp:
        """`failures` counts the failed attempts before this one; `deaths` those among them that crashed the engine."""
        kind = type(error).__name__
        if isinstance(error, RequestRefused):
            return GiveUp(kind)
        if isinstance(error, EngineDied):
            if deaths + 1 >= self.poison_deaths:
                return GiveUp("Poison")
        elif failures - deaths + 1 >= self.max_attempts:
            return GiveUp(kind)
        delay_s = min(self.max_s, self.base_s * 2**failures)
        return Retry(delay_s * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret


class RestartPolicy:
    """Decides about one worker's engine, crash by crash.

    A few crashes in a row restart it immediately. If it still finishes no request, the delay doubles from 2 s to 60 s.
    """

    CRASHES_WHILE_LOADING_MAX = 3
    _IMMEDIATE_RESTARTS = 3
    _DELAY_S, _DELAY_MAX_S = 1.0, 60.0

    def __init__(self) -> None:
        self._while_loading = 0  # crashes in a row
        self._without_result = 0  # crashes in a row

    def delay_after_crash(self, *, was_loaded: bool, had_results: bool) -> float | None:
        """Seconds to wait before the next start; None: do not start it again."""
        self._while_loading = 0 if was_loaded else self._while_loading + 1
        if self._while_loading >= self.CRASHES_WHILE_LOADING_MAX:
            return None
        self._without_result = 0 if had_results else self._without_result + 1
        delayed = self._without_result - self._IMMEDIATE_RESTARTS
        return min(self._DELAY_MAX_S, self._DELAY_S * 2**delayed) if delayed > 0 else 0.0
