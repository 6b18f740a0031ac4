"""In the engine process: the requests whose text `docmill tail` shows while it is written.

The engine is asked for text only while someone watches. `docmill.worker.tail_relay` is the worker's side.
"""

from __future__ import annotations

from collections.abc import Iterator

from docmill.worker.engine_messages import TextWritten, WatchText
from docmill.worker.engines.base import Engine, RequestId

_WATCH_S = 5.0
_INTERVAL_S = 0.1


class TailedRequests:
    """Times are readings of one monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._sent: dict[RequestId, int] = {}  # characters
        self._until: dict[RequestId, float] = {}
        self._checked_at = 0.0

    def watch(self, message: WatchText, now: float) -> None:
        """Watch a request for five seconds from now. Of several watchers, the one that has least text counts."""
        self._sent[message.request_id] = min(message.have, self._sent.get(message.request_id, message.have))
        self._until[message.request_id] = now + _WATCH_S

    def new_text(self, engine: Engine, now: float) -> Iterator[TextWritten]:
        """What watched requests have written since the last call; checked at most ten times per second."""
        if not self._until or now - self._checked_at < _INTERVAL_S:
            return
        self._checked_at = now
        for request_id, until in list(self._until.items()):
            text = engine.text_so_far(request_id)
            if text is None or now > until:
                del self._until[request_id], self._sent[request_id]
            elif len(text) > (sent := self._sent[request_id]):
                self._sent[request_id] = len(text)
                yield TextWritten(request_id, sent, text[sent:])
