"""Log lines of the services, on standard error."""

from __future__ import annotations

import logging
import os
import time

from settings.errors import SettingsError


def configure_logging() -> None:
    """One line an event, in UTC; `DOCMILL_LOG_LEVEL` sets the level (default INFO). Raises SettingsError."""
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    level = os.environ.get("DOCMILL_LOG_LEVEL", "INFO").upper()
    if level not in logging.getLevelNamesMapping():
        raise SettingsError(f"DOCMILL_LOG_LEVEL is {level!r}; use DEBUG, INFO, WARNING or ERROR")
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("celery", "kombu", "amqp", "alembic"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLogger().level))
