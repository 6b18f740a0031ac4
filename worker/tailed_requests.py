"""In the engine process: the requests whose text somebody reads as it is written. Costs nothing while nobody does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from docmill.worker.engines.base import Engine, RequestId

_FOR_S = 5.0
_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Watch:
    """To the engine: for five seconds send this request's text behind its first `have` characters, as it grows."""

    request_id: RequestId
    have: int


@dataclass(frozen=True, slots=True)
class Written:
    """From the engine: what a watched request has written from its character `at` on."""

    request_id: RequestId
    at: int
    text: str


class Watched:
    """Times are of one monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._sent: dict[RequestId, int] = {}  # characters
        self._until: dict[RequestId, float] = {}
        self._looked_at = 0.0

    def add(self, watch: Watch, now: float) -> None:
        """Watch a request, or go on with it. Of several watchers the one that has least decides what is sent."""
        self._sent[watch.request_id] = min(watch.have, self._sent.get(watch.request_id, watch.have))
        self._until[watch.request_id] = now + _FOR_S

    def news(self, engine: Engine, now: float) -> Iterator[Written]:
        """What watched requests have written since; looked for ten times a second."""
        if not self._until or now - self._looked_at < _EVERY_S:
            return
        self._looked_at = now
        for request_id, until in list(self._until.items()):
            text = engine.text_so_far(request_id)
            if text is None or now > until:
                del self._until[request_id], self._sent[request_id]
            elif len(text) > (sent := self._sent[request_id]):
                self._sent[request_id] = len(text)
                yield Written(request_id, sent, text[sent:])
