"""Put jobs on the queue of their model, many in one round trip."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from celery import Celery
from kombu.exceptions import BatchPublishError, KombuError
from redis.exceptions import RedisError

from docmill.broker.celery_app import TASK_NAME, queue_of
from docmill.broker.errors import BrokerFull, BrokerUnavailable
from docmill.settings.masking import mask

_BATCH = 500  # messages per round trip
_CONNECT_S = 3.0
_REFUSALS = ("MISCONF", "NOREPLICAS", "read only replica")  # its disk is full, it is read-only
_PROBE = "docmill.probe"  # a key that expires after a second


class Announced(Protocol):
    """The data of a message. The worker needs only the id; Flower displays the rest."""

    @property
    def id(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def model(self) -> str: ...
    @property
    def priority(self) -> int: ...
    @property
    def batch_id(self) -> str: ...
    @property
    def document(self) -> str: ...
    @property
    def level(self) -> int: ...
    @property
    def position(self) -> int: ...


def publish(app: Celery, jobs: Iterable[Announced]) -> None:
    """Send one message for each job. Raises BrokerUnavailable; some of the messages may have arrived."""
    try:
        with app.pool.acquire(block=True, timeout=10) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=_CONNECT_S)
            producer = app.amqp.Producer(connection, auto_declare=False)
            with producer.batch(_BATCH):
                for job in jobs:
                    _send(app, producer, job)
    except (KombuError, RedisError, OSError) as error:
        raise _unavailable(app, error) from error


def ping(app: Celery, timeout_s: float = _CONNECT_S) -> None:
    """Raise BrokerUnavailable if the broker does not answer, BrokerFull if it answers but accepts no messages."""
    try:
        with app.connection_for_write(connect_timeout=timeout_s) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=timeout_s)
            connection.default_channel.client.set(_PROBE, "", px=1000)
    except (KombuError, RedisError, OSError) as error:
        raise _unavailable(app, error) from error


def task_id_of(job: Announced) -> str:
    """A readable task id, unique to one attempt of a job."""
    return f"{job.batch_id}.{job.id}-{job.epoch + 1}"


def _unavailable(app: Celery, error: Exception) -> BrokerUnavailable:
    cause = error.__cause__ if isinstance(error, BatchPublishError) and error.__cause__ else error
    text = str(cause).rpartition(" caused error: ")[2]  # without the command, which contains the message
    reason = text.splitlines()[0] if text else type(cause).__name__
    url = mask(app.conf.broker_url)
    if "maxmemory" in reason:
        return BrokerFull(url, "its memory is full (maxmemory)")
    return (BrokerFull if any(refusal in reason for refusal in _REFUSALS) else BrokerUnavailable)(url, mask(reason))


def _send(app: Celery, producer: object, job: Announced) -> None:
    app.send_task(
        TASK_NAME,
        args=(job.id,),
        argsrepr=f"({job.id},)",
        kwargsrepr=repr({"batch": job.batch_id, "document": job.document, "level": job.level, "index": job.position}),
        task_id=task_id_of(job),
        queue=queue_of(job.model),
        priority=job.priority,
        retries=job.epoch,
        retry=False,  # kombu would reuse the channel that it has just closed; the dispatcher tries again
        producer=producer,
    )
