"""Answers `docmill tail`: what a watched job writes goes to Redis while somebody asks for it."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from docmill.broker.errors import BrokerUnavailable
from docmill.broker.tail_channel import TailChannel, TextPiece, TextRequest
from docmill.storage.moves.attempts import ClaimedJob
from docmill.worker.engine_messages import TextWritten
from docmill.worker.engines.base import RequestId
from docmill.worker.heartbeat import attempt_of, request_id_of

log = logging.getLogger(__name__)
_AGAIN_S = 5.0
_BACKLOG = 1_000  # pieces that wait for Redis; what comes beyond is dropped, and asked for again


class Tails:
    """Two threads: one listens for watchers, one sends, so that neither engine nor job ever waits for Redis."""

    def __init__(
        self,
        broker_url: str,
        held: Callable[[int], ClaimedJob | None],
        watch: Callable[[RequestId, int], None],
    ) -> None:
        self._channel = TailChannel(broker_url)
        self._held = held
        self._watch = watch
        self._outbox: queue.Queue[TextPiece] = queue.Queue(_BACKLOG)
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin to listen."""
        for name, run in (("tail-asks", self._listen), ("tail-pieces", self._send)):
            threading.Thread(target=run, name=name, daemon=True).start()

    def stop(self) -> None:
        """Let both threads end within seconds; they are daemons, nobody waits for them."""
        self._stop.set()

    def written(self, written: TextWritten) -> None:
        """Send what a request has written. Returns at once."""
        job_id, epoch = attempt_of(written.request_id)
        try:
            self._outbox.put_nowait(TextPiece(job_id, epoch, written.start, written.text))
        except queue.Full:
            log.debug("Redis is too slow for what job %d writes", job_id)

    def _listen(self) -> None:
        while not self._stop.is_set():
            try:
                for ask in self._channel.requests():
                    if self._stop.is_set():
                        return
                    if ask is not None:
                        self._answer(ask)
            except BrokerUnavailable as error:
                log.debug("%s", error)  # Celery says it louder
            except (TypeError, ValueError) as error:
                if self._stop.is_set():
                    return  # its connection was closed under it
                log.warning("a watcher of another version of docmill asks: %s", error)
            self._stop.wait(_AGAIN_S)

    def _answer(self, ask: TextRequest) -> None:
        job = self._held(ask.job_id)
        if job is not None:
            self._watch(request_id_of(job), ask.have if ask.epoch == job.epoch else 0)

    def _send(self) -> None:
        while not self._stop.is_set():
            try:
                self._channel.send(self._outbox.get(timeout=_AGAIN_S))
            except queue.Empty:
                continue
            except BrokerUnavailable as error:
                log.debug("%s", error)
