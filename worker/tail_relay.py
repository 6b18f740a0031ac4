"""The worker's part of `docmill tail`: sends the text of a job to Redis while someone watches it.

`docmill.worker.tailed_requests` is the part in the engine process.
"""

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
_RETRY_S = 5.0
_BACKLOG = 1_000  # pieces waiting for Redis; further ones are dropped, and watchers ask for them again


class TailRelay:
    """Two threads, one that listens and one that sends, so that neither engine nor jobs wait for Redis.

    `held` returns the job with this id if the worker runs it; `watch_text` is `Batcher.watch_text`.
    """

    def __init__(
        self,
        broker_url: str,
        held: Callable[[int], ClaimedJob | None],
        watch_text: Callable[[RequestId, int], None],
    ) -> None:
        self._channel = TailChannel(broker_url)
        self._held = held
        self._watch_text = watch_text
        self._outbox: queue.Queue[TextPiece] = queue.Queue(_BACKLOG)
        self._stop = threading.Event()

    def start(self) -> None:
        """Start to listen."""
        for name, run in (("tail-listen", self._listen), ("tail-send", self._send)):
            threading.Thread(target=run, name=name, daemon=True).start()

    def stop(self) -> None:
        """Let both threads end within seconds. They are daemon threads and are not waited for."""
        self._stop.set()

    def send_text(self, written: TextWritten) -> None:
        """Send what a request has written. Returns at once."""
        job_id, epoch = attempt_of(written.request_id)
        try:
            self._outbox.put_nowait(TextPiece(job_id, epoch, written.start, written.text))
        except queue.Full:
            log.debug("Redis is too slow for the text of job %d", job_id)

    def _listen(self) -> None:
        while not self._stop.is_set():
            try:
                for request in self._channel.requests():
                    if self._stop.is_set():
                        return
                    if request is not None:
                        self._answer(request)
            except BrokerUnavailable as error:
                log.debug("%s", error)  # Celery logs it as an error
            except (TypeError, ValueError) as error:
                if self._stop.is_set():
                    return  # the connection was closed while it was read
                log.warning("cannot read a request of `docmill tail`, perhaps of another docmill version: %s", error)
            self._stop.wait(_RETRY_S)

    def _answer(self, request: TextRequest) -> None:
        job = self._held(request.job_id)
        if job is not None:
            self._watch_text(request_id_of(job), request.have if request.epoch == job.epoch else 0)

    def _send(self) -> None:
        while not self._stop.is_set():
            try:
                self._channel.send(self._outbox.get(timeout=_RETRY_S))
            except queue.Empty:
                continue
            except BrokerUnavailable as error:
                log.debug("%s", error)
