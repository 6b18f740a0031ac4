"""Seeds that once broke something: always run again, whatever seeds are asked for."""

from __future__ import annotations

REGRESSIONS: tuple[tuple[int, str, str], ...] = ()  # seed, database, engine
