"""What each kind of fault does to a cluster, and how it is undone."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import time
from collections.abc import Callable

import psutil
import sqlalchemy as sa

from tests.chaos.cluster import Cluster, Service
from tests.chaos.schedule import Fault, Kind
from tests.chaos.servers import Postgres

Undo = Callable[[], None]


def apply(fault: Fault, cluster: Cluster) -> Undo | None:
    """Do it; returns what undoes it, None where it is over at once."""
    worker = cluster.workers[fault.target % len(cluster.workers)]
    dispatcher = cluster.dispatchers[fault.target % len(cluster.dispatchers)]
    service = dispatcher if fault.kind.name.startswith("DISPATCHER") else worker
    match fault.kind:
        case Kind.WORKER_KILLED | Kind.DISPATCHER_KILLED:
            _end(service, signal.SIGKILL)
        case Kind.WORKER_TERMINATED:
            _end(service, signal.SIGTERM)
        case Kind.WORKER_TERMINATED_TWICE:
            _end(service, signal.SIGTERM)
            time.sleep(0.2)
            _end(service, signal.SIGTERM)
        case Kind.WORKER_FROZEN | Kind.DISPATCHER_FROZEN:
            return _freeze(service)
        case Kind.ENGINE_KILLED:
            if (engine := service.engine) is not None:
                engine.kill()
        case Kind.ENGINE_FROZEN:
            return _freeze_engine(service)
        case _:
            return _to_what_they_share(fault.kind, cluster)
    return None


def _to_what_they_share(kind: Kind, cluster: Cluster) -> Undo | None:
    broker, far_host = cluster.broker, cluster.far_host
    match kind:
        case Kind.BROKER_KILLED:
            broker.end(signal.SIGKILL)
            return broker.start
        case Kind.BROKER_RESTARTED:
            broker.end(signal.SIGTERM)
            return broker.start
        case Kind.BROKER_FLUSHED:
            broker.flush()
        case Kind.BROKER_FROZEN:
            broker.send(signal.SIGSTOP)
            return lambda: broker.send(signal.SIGCONT)
        case Kind.LINK_DOWN if far_host is not None:
            far_host.cut(is_cut=True)
            return lambda: far_host.cut(is_cut=False)
        case Kind.DATABASE_LOCKED:
            return _lock(cluster)
        case _ if cluster.postgres is not None:
            return _to_postgres(kind, cluster.postgres)
    return None


def _to_postgres(kind: Kind, postgres: Postgres) -> Undo | None:
    match kind:
        case Kind.DATABASE_CRASHED:
            postgres.end(signal.SIGQUIT)
            return postgres.start
        case Kind.DATABASE_RESTARTED:
            postgres.end(signal.SIGINT)
            return postgres.start
        case Kind.DATABASE_FROZEN:
            postgres.freeze(frozen=True)
            return lambda: postgres.freeze(frozen=False)
        case Kind.CONNECTIONS_DROPPED:
            postgres.drop_connections()
    return None


def _end(service: Service, number: signal.Signals) -> None:
    service.hit = True
    service.send(number)


def _freeze(service: Service) -> Undo:
    process = service.process  # not the one that may follow it
    service.send(signal.SIGSTOP)

    def go_on() -> None:
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGCONT)

    return go_on


def _freeze_engine(worker: Service) -> Undo | None:
    engine = worker.engine
    if engine is None:
        return None
    engine.suspend()

    def go_on() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            engine.resume()

    return go_on


def _lock(cluster: Cluster) -> Undo:
    path = str(sa.make_url(cluster.storage_url).database)
    holder = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")

    def unlock() -> None:
        holder.execute("ROLLBACK")
        holder.close()

    return unlock
