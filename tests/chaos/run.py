"""One run of a campaign: begin everything, apply the faults, bring everything back, wait for the end, audit."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from docmill.broker.child_processes import die_with_parent
from docmill.storage.database import Database
from docmill.storage.schema import upgrade
from tests.chaos.clients import ENDED, Client
from tests.chaos.cluster import Cluster
from tests.chaos.far_host import FarHost
from tests.chaos.schedule import BatchPlan, Campaign
from tests.chaos.servers import Postgres, Valkey, until
from tests.chaos.timeline import Timeline
from tests.chaos.verdict import Observed, judge
from tests.homes import link_home

_UP_S = 90.0  # patience, not expectation: other work may have this machine
_END_S = 240.0
_EVERY_S = 0.25  # each look costs a connection
_LAST = BatchPlan(0.0, 900, 6, reuse=False)  # what every worker must take part in when all is over


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to. `log` says when each fault was applied; `settled_s` from the last fault to the end;
    `left_out`: why a link was not cut."""

    campaign: Campaign
    jobs: int
    runs: int
    seconds: float
    settled_s: float
    complaints: tuple[str, ...]
    log: tuple[str, ...]
    left_out: str = ""

    def __str__(self) -> str:
        verdict = ("broken" if self.complaints else "ok") + (
            f", its link left out: {self.left_out}" * bool(self.left_out)
        )
        return (
            f"seed {self.campaign.seed:4} {self.campaign.database:8} {len(self.campaign.faults)} faults "
            f"{self.jobs:4} jobs {self.runs:4} runs {self.seconds:5.1f} s "
            f"({self.settled_s:.1f} s after the last fault) {verdict}"
        )


@dataclass
class Stage:
    """Where campaigns of one process run: `models` is a home with the demo model, `directory` takes what they leave."""

    models: Path
    directory: Path
    number: int = 0  # of the process, among those that run campaigns at the same time
    _postgres: Postgres | None = field(default=None, init=False)

    def postgres(self) -> Postgres:
        """The Postgres of this process, running."""
        if self._postgres is None:
            self._postgres = Postgres(self.directory / "pg")
        self._postgres.start()
        return self._postgres

    def close(self) -> None:
        """End what runs."""
        if self._postgres is not None:
            self._postgres.kill()


def run(campaign: Campaign, stage: Stage) -> Outcome:
    """Run it; what it leaves is kept where something was complained of."""
    try:
        return _run(campaign, stage)
    except PermissionError as error:
        return replace(_run(campaign.on_one_host(), stage), left_out=str(error))
    except Exception:  # noqa: BLE001 - other campaigns go on
        return Outcome(campaign, 0, 0, 0.0, 0.0, (traceback.format_exc(),), ())


def _run(campaign: Campaign, stage: Stage) -> Outcome:
    began = time.monotonic()
    with opened(campaign, stage) as cluster:
        outcome = _Run(cluster, began).outcome()
        cluster.complaints[:] = outcome.complaints
        return outcome


@contextmanager
def opened(campaign: Campaign, stage: Stage) -> Iterator[Cluster]:
    """Servers and a migrated database for it; nothing is left of them but where something was complained of.

    Raises PermissionError where it needs another host and none can be made here.
    """
    name = f"{campaign.database}_{campaign.engine}_{campaign.seed}"
    home = stage.directory / name
    shutil.rmtree(home, ignore_errors=True)
    far_host = FarHost(f"chaos{os.getpid()}", os.getpid() % 250) if campaign.is_networked else None
    if far_host is not None:
        far_host.open()
    link_home(stage.models, home)
    cluster = _cluster(campaign, stage, home, name, far_host)
    try:
        yield cluster
    except BaseException as error:
        cluster.complaints.append(repr(error))
        raise
    finally:
        cluster.kill()
        cluster.broker.kill()
        if far_host is not None:
            far_host.close()
        if not cluster.complaints:
            if cluster.postgres is not None:
                cluster.postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")
            shutil.rmtree(home)


def _cluster(campaign: Campaign, stage: Stage, home: Path, name: str, far_host: FarHost | None) -> Cluster:
    broker = Valkey(home / "broker", append_only=campaign.append_only, host=far_host.near if far_host else None)
    broker.start()
    postgres = stage.postgres() if campaign.database == "postgres" else None
    if postgres is None:
        url = far_url = f"sqlite:///{home / 'docmill.db'}"
    else:
        postgres.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        postgres.execute(f"CREATE DATABASE {name}")
        url, far_url = postgres.url(name), postgres.url(name, far_host.near if far_host else None)
    database = Database(url)
    upgrade(database)
    database.close()
    return Cluster(campaign, home, broker, url, far_url, postgres, far_host)


class _Run:
    def __init__(self, cluster: Cluster, began: float) -> None:
        self._cluster = cluster
        self._began = began
        self._observed = Observed()
        self._log: list[str] = []
        self._clients: list[Client] = []

    def outcome(self) -> Outcome:
        campaign, cluster = self._cluster.campaign, self._cluster
        settled_s = 0.0
        try:
            cluster.start()
            first = min(plan.at_s for plan in campaign.batches)
            early = [self._client(plan, time.monotonic()) for plan in campaign.batches if plan.at_s == first]
            until(self._has_begun, "the first job to run", _UP_S, _EVERY_S)
            now = time.monotonic()
            for plan in campaign.batches:
                if plan.at_s != first:
                    self._client(plan, now)
            del early
            timeline = Timeline(cluster, now, lambda: self._observed.look(cluster))
            self._log = timeline.log
            timeline.play(campaign.faults)
            over = time.monotonic()
            self._wait_for_end()
            settled_s = time.monotonic() - over
            self._work_once_more()
        except TimeoutError as error:
            cluster.complaints.append(str(error))
        cluster.stop_in_order()
        counted = cluster.rows(
            "SELECT (SELECT count(*) FROM jobs) AS jobs, "
            "(SELECT count(*) FROM attempts WHERE outcome <> 'reused') AS runs"
        )
        complaints = [*cluster.complaints, *judge(cluster, self._clients, self._observed)]
        jobs, runs = (counted[0].jobs, counted[0].runs) if counted else (0, 0)
        return Outcome(
            campaign, jobs, runs, time.monotonic() - self._began, settled_s, tuple(complaints), tuple(self._log)
        )

    def _client(self, plan: BatchPlan, began_at: float) -> Client:
        client = Client(len(self._clients), plan, self._cluster, began_at)
        self._clients.append(client)
        client.start()
        return client

    def _has_begun(self) -> bool:
        rows = self._cluster.rows("SELECT count(*) AS n FROM jobs WHERE state IN ('running', 'succeeded')")
        return bool(rows and rows[0].n)

    def _wait_for_end(self) -> None:
        def is_over() -> bool:
            self._observed.look(self._cluster)
            if not all(client.is_over.is_set() for client in self._clients):
                return False
            words = ", ".join(f"'{state}'" for state in ENDED)
            open_batches = self._cluster.rows(f"SELECT count(*) AS n FROM batches WHERE state NOT IN ({words})")
            return open_batches is not None and open_batches[0].n == 0

        until(is_over, "the end of all batches", _END_S, _EVERY_S)

    def _work_once_more(self) -> None:
        """All is well again: no worker may be left that lives and takes no job."""
        cluster = self._cluster
        until(
            lambda: all(s.is_ready and not s.again_at for s in cluster.workers), "all workers to be up", _UP_S, _EVERY_S
        )
        for number in range(4):
            client = self._client(BatchPlan(0.0, 900 + 50 * number, _LAST.documents, reuse=False), time.monotonic())
            self._wait_for_end()
            rows = cluster.rows(
                "SELECT DISTINCT a.worker FROM attempts a JOIN jobs j ON j.id = a.job_id WHERE j.batch_id = :b",
                b=client.batch_id,
            )
            took_part = {str(row.worker).rpartition("-")[2] for row in rows or ()}
            idle = [s.name for s in cluster.workers if s.process and str(s.process.pid) not in took_part]
            if not idle:
                return
        cluster.complaints.append(f"{', '.join(idle)} took no job when all was over")


_stage: Stage | None = None


def enter(models: Path, directory: Path) -> None:
    """Prepare a process of a pool: its campaigns run one after the other on a stage of its own."""
    global _stage
    signal.signal(signal.SIGTERM, _leave)
    die_with_parent(signal.SIGTERM)
    _stage = Stage(models, directory / f"p{os.getpid()}")
    _stage.directory.mkdir()
    atexit.register(_stage.close)


def _leave(number: int, _frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # what is being cleared away is cleared away
    sys.exit(1)


def run_here(campaign: Campaign) -> Outcome:
    """Run it on this process' stage."""
    assert _stage is not None
    try:
        return run(campaign, _stage)
    except SystemExit:  # the pool would go on with the next
        _stage.close()
        os._exit(1)
