"""Whether a failed attempt is worth another: decided here, done in `docmill.worker.run_job`."""

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
    """Fail the job for good. `kind` is what it is counted by."""

    kind: str


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Attempts are capped; the wait doubles from `base_s` to `max_s`, jittered so that jobs spread out.

    A request that the engine refuses is never tried again. One under which the engine process died while it was
    alone in it `poison_deaths` times is poison; other failures do not count towards that.
    """

    max_attempts: int = _DEFAULTS.max_attempts
    poison_deaths: int = _DEFAULTS.poison_deaths
    base_s: float = 1.0
    max_s: float = 60.0

    def decide(self, error: Exception, failures: int, deaths: int = 0) -> Retry | GiveUp:
        """`failures` counts the attempts charged before this one, `deaths` the engine's deaths among them."""
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
