"""One dispatcher in this process, on a real broker and real databases."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from celery import Celery
from redis import Redis

from docmill.broker.celery_app import make_app
from docmill.broker.embedded_broker import EmbeddedBroker
from docmill.broker.errors import BrokerUnavailable
from docmill.producer.dispatcher import Dispatcher
from docmill.producer.merge_runner import MergeRunner
from docmill.settings.defaults import Producer
from docmill.storage.database import Database
from docmill.storage.errors import DatabaseUnavailable
from docmill.storage.moves.announce import Outbox, Publishable
from docmill.storage.moves.documents import Documents
from tests.integration.conftest import wait_until
from tests.unit.broker.conftest import client_of
from tests.unit.storage.conftest import Mill

QUEUE = "docmill.m\x06\x165"  # of priority 5
AHEAD = "docmill.m\x06\x164"  # served before it


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(tmp_path_factory.mktemp("v")) as broker:
        yield broker


@pytest.fixture
def client(valkey: EmbeddedBroker) -> Iterator[Redis]:
    with client_of(valkey.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def mill(database: Database) -> Mill:
    return Mill(database)


class Interrupted(Exception):
    """The dispatcher was killed here."""


class DiesBeforeMarking(Outbox):
    """An outbox whose dispatcher dies between publishing and noting it."""

    def mark_published(self, jobs: Sequence[Publishable]) -> None:
        raise Interrupted


MakeDispatcher = Callable[..., Dispatcher]


@pytest.fixture
def make_dispatcher(mill: Mill, valkey: EmbeddedBroker, client: Redis) -> MakeDispatcher:
    def make(outbox: Outbox | None = None, app: Celery | None = None, **policy: float) -> Dispatcher:
        levels = Documents(mill.database)
        chosen = Producer(dispatch_interval_s=0.01).model_copy(update=policy)
        return Dispatcher(
            outbox or mill.outbox, levels, MergeRunner(levels, Path("/nowhere")), app or make_app(valkey.url), chosen
        )

    return make


def test_the_queue_is_filled_up_to_the_watermark_and_again_as_it_drains(
    mill: Mill, make_dispatcher: MakeDispatcher, client: Redis
) -> None:
    job_ids = mill.job_ids(mill.submit(*[5] * 4))
    dispatcher = make_dispatcher(watermark=8)
    for _ in range(3):
        dispatcher.tick()
        assert client.llen(QUEUE) == 8
    for job_id in job_ids[:3]:
        client.rpop(QUEUE)
        mill.claim(job_id)
    dispatcher.tick()
    assert client.llen(QUEUE) == 8
    assert mill.outbox.published("m") == 8


def test_however_large_the_batch_the_queue_stays_bounded(
    mill: Mill, make_dispatcher: MakeDispatcher, client: Redis
) -> None:
    mill.submit(*[600] * 2)
    dispatcher = make_dispatcher()
    dispatcher.tick()
    dispatcher.tick()
    assert client.llen(QUEUE) == 1000
    mill.register("large", slots=270)
    dispatcher.tick()
    assert client.llen(QUEUE) == 4 * 270


def test_a_dispatcher_that_dies_before_it_notes_what_it_sent_only_doubles_messages(
    mill: Mill, make_dispatcher: MakeDispatcher, client: Redis
) -> None:
    (job_id,) = mill.job_ids(mill.submit(1))
    with pytest.raises(Interrupted):
        make_dispatcher(DiesBeforeMarking(mill.database)).tick()
    make_dispatcher().tick()
    assert client.llen(QUEUE) == 2
    claims = [mill.worker(name).claim(job_id) for name in ("first", "second")]
    assert [claim is not None for claim in claims] == [True, False]


def test_a_lost_message_is_sent_again_though_the_queue_is_full(
    mill: Mill, make_dispatcher: MakeDispatcher, client: Redis
) -> None:
    mill.submit(3)
    dispatcher = make_dispatcher(watermark=3, republish_s=60)
    dispatcher.tick()
    client.rpop(QUEUE)
    mill.let_pass(61)
    mill.submit(3)
    dispatcher.tick()
    assert client.llen(QUEUE) == 2 + 3, "of those that wait, each is sent again: which was lost is not known"
    dispatcher.tick()
    assert client.llen(QUEUE) == 2 + 3, "and not again at once"


def test_an_expired_lease_is_rescued_and_its_job_announced_ahead_of_others_in_one_round(
    mill: Mill, make_dispatcher: MakeDispatcher, client: Redis
) -> None:
    (job_id,) = mill.job_ids(mill.submit(1))
    mill.claim(job_id)
    mill.let_pass(31)
    make_dispatcher().tick()
    assert mill.job(job_id).state == "queued"
    assert client.llen(AHEAD) == 1


def test_a_document_that_cannot_be_taken_on_fails_and_its_batch_completes(
    mill: Mill, make_dispatcher: MakeDispatcher
) -> None:
    batch_id = mill.submit(1)
    mill.change("UPDATE batches SET plan = :plan", plan='{"model": "a model that is not here"}')
    mill.run(mill.job_ids(batch_id)[0])
    dispatcher = make_dispatcher()
    dispatcher.tick()
    dispatcher.tick()
    assert mill.of_batch(batch_id).state == "completed"
    assert mill.of_batch(batch_id).documents_failed == 1


def test_it_waits_for_a_broker_and_a_database_that_are_away_and_goes_on(
    mill: Mill, make_dispatcher: MakeDispatcher, tmp_path: Path
) -> None:
    broker = EmbeddedBroker(tmp_path / "b")
    dispatcher = make_dispatcher(FailsOnce(mill.database, DatabaseUnavailable("away")), app=make_app(broker.url))
    mill.submit(1)
    with pytest.raises(DatabaseUnavailable):
        dispatcher.tick()
    with pytest.raises(BrokerUnavailable):
        dispatcher.tick()
    stop = threading.Event()
    thread = threading.Thread(target=dispatcher.run, args=(stop,))
    thread.start()
    try:
        broker.start()
        wait_until(lambda: mill.outbox.published("m") == 1, "the job to be announced")
        assert client_of(broker.url).llen(QUEUE) == 1
    finally:
        stop.set()
        thread.join()
        broker.stop()
    assert not thread.is_alive()


def test_an_error_that_nobody_expected_ends_a_round_and_not_the_dispatcher(
    mill: Mill, make_dispatcher: MakeDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    dispatcher = make_dispatcher(FailsOnce(mill.database, AttributeError("'NoneType' object has no attribute")))
    mill.submit(1)
    stop = threading.Event()
    thread = threading.Thread(target=dispatcher.run, args=(stop,))
    thread.start()
    try:
        wait_until(lambda: mill.outbox.published("m") == 1, "the job to be announced")
    finally:
        stop.set()
        thread.join()
    assert dispatcher.counts.failed_rounds == 1
    (said,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert said.exc_info is not None, "where it happened is said"


class FailsOnce(Outbox):
    """A database that fails at the first question."""

    def __init__(self, database: Database, error: Exception) -> None:
        super().__init__(database)
        self._error: Exception | None = error

    def models_at_work(self) -> list[str]:
        if (error := self._error) is not None:
            self._error = None
            raise error
        return super().models_at_work()
