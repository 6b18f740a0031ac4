"""Processes that die as by kill -9 at a chosen commit: every state that a crash can leave behind, one after another."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

import docmill.producer.composition
from docmill.broker.celery_app import make_app
from docmill.broker.embedded_broker import running_url
from docmill.producer.composition import Backend, broker_directory
from docmill.producer.submission import SubmitOptions
from docmill.settings.load import load_settings
from docmill.storage.database import Database
from docmill.storage.moves.attempts import WorkerIdentity
from docmill.storage.moves.jobs import Jobs
from tests.unit.storage.conftest import generated

KILLED = -signal.SIGKILL
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.chaos.dying"])


def dies_in(act: Callable[..., None], *arguments: Any, **options: Any) -> bool:
    """Play one of the acts below in a process of its own. True: it was killed; False: it came to its end."""
    process = _context.Process(target=act, args=arguments, kwargs=options)
    process.start()
    process.join()
    assert process.exitcode in (0, KILLED)
    return process.exitcode == KILLED


def dispatch(environment: Mapping[str, str], rounds: int, *, dies_before_commit: int) -> None:
    """So many rounds of a dispatcher."""
    backend = Backend(load_settings(environment=environment))
    url = running_url(broker_directory(backend.settings))
    assert url is not None
    dispatcher = backend.dispatcher(make_app(url))
    _die_before_commit(backend.database, dies_before_commit)
    for _ in range(rounds):
        dispatcher.tick()


def submit(
    environment: Mapping[str, str], documents: Sequence[str], options: Mapping[str, Any], *, dies_before_commit: int
) -> None:
    """Submit; commits are counted from when the database has been opened."""
    backend = Backend(load_settings(environment=environment))
    submission = backend.prepare(documents, SubmitOptions(**options))
    _die_before_commit(backend.database, dies_before_commit)
    backend.submit(submission)


def submit_and_die_before_publishing(
    environment: Mapping[str, str], documents: Sequence[str], options: Mapping[str, Any]
) -> None:
    """Submit; everything is stored, nothing is announced."""
    backend = Backend(load_settings(environment=environment))
    submission = backend.prepare(documents, SubmitOptions(**options))
    docmill.producer.composition.Dispatcher.fill_queue = _die  # type: ignore[method-assign]
    backend.submit(submission)


def work(database_url: str, job_id: int, text: str, *, dies_before_commit: int) -> None:
    """Claim a job (one commit), and store its text (another)."""
    database = Database(database_url)
    _die_before_commit(database, dies_before_commit)
    jobs = Jobs(database, WorkerIdentity("doomed", "simulated", "simulated"), lease_s=60.0)
    job = jobs.claim(job_id)
    assert job is not None
    assert jobs.complete(job, generated(text))  # type: ignore[arg-type]


def _die_before_commit(database: Database, number: int) -> None:
    left = [number]

    def count(_connection: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            _die()

    sa.event.listen(database.engine, "commit", count)


def _die(*_arguments: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)
