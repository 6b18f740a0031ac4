"""What a campaign does, as plain data drawn from a seed: services, batches, faults. Equal seeds, equal campaigns."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from enum import StrEnum

LEASE_S = 1.5


class Kind(StrEnum):
    """What is done to whom. Those that last are undone when their time is over."""

    WORKER_KILLED = "kill -9 of a worker"
    ENGINE_KILLED = "kill -9 of an engine process"
    DISPATCHER_KILLED = "kill -9 of a dispatcher"
    WORKER_FROZEN = "a worker stopped for longer than its leases"
    ENGINE_FROZEN = "an engine process stopped"
    DISPATCHER_FROZEN = "a dispatcher stopped"
    WORKER_TERMINATED = "SIGTERM of a worker"
    WORKER_TERMINATED_TWICE = "SIGTERM of a worker, twice"
    BROKER_KILLED = "kill -9 of the broker"
    BROKER_RESTARTED = "the broker restarted in order"
    BROKER_FLUSHED = "FLUSHALL"
    BROKER_FROZEN = "the broker stopped"
    DATABASE_LOCKED = "SQLite locked by another connection"
    DATABASE_CRASHED = "Postgres ended at once"
    DATABASE_RESTARTED = "Postgres restarted in order"
    DATABASE_FROZEN = "Postgres' sessions stopped"
    CONNECTIONS_DROPPED = "all connections to Postgres dropped"
    LINK_DOWN = "a worker's host cut off the network"


_SQLITE_ONLY = frozenset({Kind.DATABASE_LOCKED})
_POSTGRES_ONLY = frozenset(
    {Kind.DATABASE_CRASHED, Kind.DATABASE_RESTARTED, Kind.DATABASE_FROZEN, Kind.CONNECTIONS_DROPPED}
)
# How long each lasts at least and at most, in seconds. Kinds that are over at once are not here.
_LASTS_S: dict[Kind, tuple[float, float]] = {
    Kind.WORKER_FROZEN: (2.0 * LEASE_S, 3.5 * LEASE_S),
    Kind.ENGINE_FROZEN: (0.5, 3.0),
    Kind.DISPATCHER_FROZEN: (1.0, 4.0),
    Kind.BROKER_KILLED: (0.0, 3.0),
    Kind.BROKER_RESTARTED: (0.0, 2.0),
    Kind.BROKER_FROZEN: (1.0, 7.0),
    Kind.DATABASE_LOCKED: (1.0, 5.0),
    Kind.DATABASE_CRASHED: (0.0, 3.0),
    Kind.DATABASE_RESTARTED: (0.0, 3.0),
    Kind.DATABASE_FROZEN: (1.0, 5.0),
    Kind.LINK_DOWN: (1.0, 4.0 * LEASE_S),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """`at_s` seconds after work began, to the `target`-th of its kind, undone after `lasts_s`."""

    at_s: float
    kind: Kind
    target: int = 0
    lasts_s: float = 0.0

    @property
    def resource(self) -> str:
        """What two faults at the same time must not share."""
        part = self.kind.name.partition("_")[0].replace("CONNECTIONS", "DATABASE").replace("LINK", "WORKER")
        return part if part in ("BROKER", "DATABASE") else f"{part.replace('ENGINE', 'WORKER')}{self.target}"

    def __str__(self) -> str:
        lasting = f" for {self.lasts_s:.1f} s" if self.lasts_s else ""
        return f"{self.at_s:5.1f} s {self.kind}{lasting} (number {self.target})"


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """What a client submits `at_s` seconds after work began, and does with it later.

    `documents` and `first` name the texts; equal numbers are equal texts. The client is killed when so many documents
    are stored (`dies_after`), and then submits the same again.
    """

    at_s: float
    first: int
    documents: int
    priority: int = 5
    reuse: bool = True
    keyed: bool = False
    dies_after: int | None = None
    deadline_s: float | None = None
    cancelled_after_s: float | None = None
    paused_after_s: float | None = None
    paused_for_s: float = 0.0

    @property
    def ends(self) -> frozenset[str]:
        """The states it may end in: a cancel or a deadline may come too late."""
        if self.cancelled_after_s is not None:
            return frozenset({"cancelled", "completed"})
        return frozenset({"completed"} if self.deadline_s is None else {"completed", "expired"})


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """`skew_s`: its clock's error. `remote`: on a host of its own, behind a link. `steps_per_s` of its engine."""

    slots: int = 4
    steps_per_s: float = 100.0
    drain_timeout_s: float = 0.0
    skew_s: float = 0.0
    remote: bool = False


@dataclass(frozen=True, slots=True)
class Campaign:
    """Everything that a run does by intention. `append_only`: whether the broker keeps what it holds over its death."""

    seed: int
    database: str
    engine: str
    append_only: bool
    workers: tuple[WorkerPlan, ...]
    dispatcher_skews_s: tuple[float, ...]
    batches: tuple[BatchPlan, ...]
    faults: tuple[Fault, ...]

    @property
    def is_networked(self) -> bool:
        """Whether some service runs on another host."""
        return any(worker.remote for worker in self.workers)

    def on_one_host(self) -> Campaign:
        """The same without other hosts, for where none can be made."""
        return replace(
            self,
            workers=tuple(replace(worker, remote=False) for worker in self.workers),
            faults=tuple(fault for fault in self.faults if fault.kind is not Kind.LINK_DOWN),
        )

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed} on {self.database}, engine {self.engine}, broker persistent: {self.append_only}",
            *(f"  worker {number}: {worker}" for number, worker in enumerate(self.workers)),
            f"  dispatchers' clocks off by {self.dispatcher_skews_s} s",
            *(f"  batch {number}: {batch}" for number, batch in enumerate(self.batches)),
            *(f"  {fault}" for fault in self.faults),
        ]
        return "\n".join(lines)


def draw(
    seed: int, database: str, *, engine: str = "simulated", short: bool = False, faults: int | None = None
) -> Campaign:
    """The campaign of this seed. Consecutive seeds begin with consecutive kinds, so that twenty have them all.

    `short` for the one in `make test`; `faults`: so many of them, in a longer run, to look for trouble.
    """
    rng = random.Random(f"{seed} {database} {engine} {short}{faults or ''}")
    kinds = [kind for kind in Kind if kind not in (_POSTGRES_ONLY if database == "sqlite" else _SQLITE_ONLY)]
    first = kinds[seed % len(kinds)]
    drawn = [first, *rng.choices(kinds, k=(faults or (3 if short else rng.randint(5, 8))) - 1)]
    stretch = max(1.0, len(drawn) / 8)
    remote = Kind.LINK_DOWN in drawn
    workers = [_worker(rng) for _ in range(2 if short else rng.choice((2, 2, 3)))]
    if remote:
        workers[0] = WorkerPlan(remote=True)
    return Campaign(
        seed=seed,
        database=database,
        engine=engine,
        append_only=rng.random() < 0.6,
        workers=tuple(workers),
        dispatcher_skews_s=(0.0, rng.choice((0.0, 3600.0, -3600.0))),
        batches=_batches(rng, stretch, short=short, slow=engine != "simulated"),
        faults=_faults(rng, drawn, workers=len(workers), within_s=4.0 if short else 11.0 * stretch),
    )


def _worker(rng: random.Random) -> WorkerPlan:
    return WorkerPlan(
        slots=rng.choice((2, 4, 4)),
        drain_timeout_s=rng.choice((0.0, 0.0, 1.0)),
        skew_s=rng.choice((0.0, 0.0, 3600.0, -3600.0)),
    )


def _batches(rng: random.Random, stretch: float, *, short: bool, slow: bool) -> tuple[BatchPlan, ...]:
    size = 2 if slow else 4 if short else 6
    batches = [
        BatchPlan(0.0, 0, size + 2, keyed=rng.random() < 0.5),
        BatchPlan(rng.uniform(0.5, 2.0), 0, size, reuse=rng.random() < 0.7, priority=rng.randint(0, 9)),  # the same
        BatchPlan(rng.uniform(1.0, 4.0), 100, 2 * size, keyed=rng.random() < 0.5, dies_after=rng.randrange(2 * size)),
    ]
    if not short:
        when = rng.uniform(2.0, 6.0)
        kind = rng.choice(("cancelled", "paused", "deadline"))
        batches += [
            BatchPlan(
                when, 200, size, priority=rng.randint(0, 5),
                cancelled_after_s=rng.uniform(0.5, 3.0) if kind == "cancelled" else None,
                paused_after_s=rng.uniform(0.2, 2.0) if kind == "paused" else None,
                paused_for_s=rng.uniform(0.5, 3.0) if kind == "paused" else 0.0,
                deadline_s=round(rng.uniform(2.0, 12.0), 1) if kind == "deadline" else None,
            ),
            BatchPlan(rng.uniform(5.0, 9.0), 300, size, priority=rng.randint(0, 9), keyed=rng.random() < 0.5),
        ]  # fmt: skip
    stretched = [replace(batch, at_s=round(batch.at_s * stretch, 1)) for batch in batches]
    return tuple(sorted(stretched, key=lambda batch: batch.at_s))


def _faults(rng: random.Random, kinds: list[Kind], *, workers: int, within_s: float) -> tuple[Fault, ...]:
    """Each at a time of its own, no two on the same thing at once; they may well overlap otherwise."""
    free_at: dict[str, float] = {}
    faults = []
    times = sorted(rng.uniform(0.3, within_s) for _ in kinds)
    rng.shuffle(kinds)
    for at_s, kind in zip(times, kinds, strict=True):
        target = 0 if kind is Kind.LINK_DOWN else rng.randrange(2 if kind.name.startswith("DISPATCHER") else workers)
        lasts_s = round(rng.uniform(*_LASTS_S[kind]), 1) if kind in _LASTS_S else 0.0
        drawn = Fault(at_s, kind, target, lasts_s)
        begins = round(max(at_s, free_at.get(drawn.resource, 0.0)), 1)
        free_at[drawn.resource] = begins + lasts_s + 0.5
        faults.append(Fault(begins, kind, target, lasts_s))
    return tuple(sorted(faults, key=lambda fault: fault.at_s))
