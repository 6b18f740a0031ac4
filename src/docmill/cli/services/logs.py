"""The log of the services, on standard error."""

from __future__ import annotations

import logging
import os
import time

from docmill.settings.errors import SettingsError

LOG_FORMAT = "DOCMILL_LOG_FORMAT"
LOG_FORMATS = ("text", "json")


def configure_logging() -> None:
    """Log one line per event, with times in UTC. Raises SettingsError.

    `DOCMILL_LOG_LEVEL` sets the level (default INFO), `DOCMILL_LOG_FORMAT` (as `--log-format`) the format: text or
    json.
    """
    form = os.environ.get(LOG_FORMAT, "text").lower()
    if form not in LOG_FORMATS:
        raise SettingsError(f"{LOG_FORMAT} is {form!r}; use {' or '.join(LOG_FORMATS)}")
    handler = logging.StreamHandler()
    handler.setFormatter(_json() if form == "json" else _text())
    level = os.environ.get("DOCMILL_LOG_LEVEL", "INFO").upper()
    if level not in logging.getLevelNamesMapping():
        raise SettingsError(f"DOCMILL_LOG_LEVEL is {level!r}; use DEBUG, INFO, WARNING or ERROR")
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("celery", "kombu", "amqp", "alembic"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLogger().level))


def _text() -> logging.Formatter:
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    return formatter


def _json() -> logging.Formatter:
    """JSON with `timestamp` (to the microsecond), `level`, `logger`, `message`, and the fields of the event."""
    from pythonjsonlogger.json import JsonFormatter

    return JsonFormatter(
        "%(levelname)s %(name)s %(message)s", rename_fields={"levelname": "level", "name": "logger"}, timestamp=True
    )
