"""Judgements of database, broker, workers and the profile's model. Pure functions: facts in, findings out."""

from __future__ import annotations

from collections.abc import Iterator

from docmill.broker.broker_health import BrokerHealth
from docmill.formatting import gib
from docmill.insight.checkup.services import BrokerFacts, DatabaseFacts, ModelFacts, Services
from docmill.insight.findings import Finding, Status
from docmill.settings.defaults import WORKER_SEEN_S
from docmill.sizing.machine import Machine
from docmill.storage.reads.health import Answer, Work

# What the same bytes are called by different systems: all of them go over a network, where SQLite's locks do not hold.
NETWORK_FILESYSTEMS = frozenset(
    {"nfs", "nfs3", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "afs", "ncpfs", "9p", "ceph", "glusterfs", "lustre",
     "gpfs", "beegfs", "fuse.sshfs", "fuse.s3fs", "fuse.glusterfs", "fuse.rclone", "webdav", "davfs"}
)  # fmt: skip
_SLOW_BROKER_S, _SLOW_DATABASE_S = 0.01, 0.02
_SKEW_S = 2.0
_NEARLY_FULL = 0.8
_GPU_OWN_BYTES = 1 << 30  # what an engine takes on a GPU beside weights and cache
_DATABASE, _BROKER, _SERVICES, _MODEL = "database", "broker", "services", "model"


def check_services(services: Services, machine: Machine) -> Iterator[Finding]:
    """All of them; what does not answer is told once."""
    yield check_model(services.model, machine)
    yield from check_database(services.database)
    yield from check_broker(services.broker)
    if services.database.work is not None:
        yield from check_work(services.database.work)


def check_model(model: ModelFacts, machine: Machine) -> Finding:
    """Whether its files are here, and whether it fits what is free now."""
    if model.error:
        return Finding(_MODEL, "files", Status.WARN, f"{model.name} cannot be used: {model.error}", _how_to_get(model))
    needed = model.weights_bytes + model.window_bytes
    what = f"{model.name} on {model.engine}: {gib(model.weights_bytes)}, and {gib(model.window_bytes)} for one window"
    if not model.is_on_gpu:
        if needed > machine.memory.free_bytes:
            advice = f"{gib(machine.memory.free_bytes)} are free: a smaller model or llm.context_window, or end others"
            return Finding(_MODEL, "fits", Status.FAIL, what, advice)
        return Finding(_MODEL, "fits", Status.PASS, what)
    free = sum(gpu.free_bytes for gpu in machine.gpus)
    if not machine.gpus:
        advice = "it needs a GPU: take a GGUF model (`docmill models list`) on this machine"
        return Finding(_MODEL, "fits", Status.FAIL, what, advice)
    if needed + _GPU_OWN_BYTES > free:
        advice = f"{gib(free)} are free on GPUs: `docmill plan` says what would make it fit"
        return Finding(_MODEL, "fits", Status.WARN, what, advice)
    return Finding(_MODEL, "fits", Status.PASS, f"{what}; `docmill plan` has the sums")


def check_database(facts: DatabaseFacts) -> Iterator[Finding]:
    """Answers, is fast, has this version's schema and our time, lies where its locks hold."""
    if facts.error:
        yield Finding(_DATABASE, "answers", Status.FAIL, facts.error, "start it, or correct storage.url")
        return
    if facts.is_sqlite and facts.filesystem in NETWORK_FILESYSTEMS:
        what = f"{facts.name} lies on {facts.filesystem}, a network file system"
        advice = "SQLite's locks do not hold there and data will be lost: use a local --home, or Postgres (storage.url)"
        yield Finding(_DATABASE, "file system", Status.WARN, what, advice)
    if not facts.is_there:
        what = f"{facts.name} is not made yet; `docmill run` and `docmill db upgrade` do"
        yield Finding(_DATABASE, "answers", Status.PASS, what)
        return
    if facts.answer is not None:
        yield _check_answer(facts.name, facts.answer)
        if not facts.is_sqlite:
            yield _check_clock(_DATABASE, facts.answer.clock_offset_s, facts.answer.ping_s)
    yield _check_schema(facts)


def _check_answer(name: str, answer: Answer) -> Finding:
    what = f"{name} in {answer.ping_s * 1000:.1f} ms (median)"
    if answer.ping_s > _SLOW_DATABASE_S:
        advice = "a job takes several statements: bring the database nearer, or give it a faster disk"
        return Finding(_DATABASE, "answers", Status.WARN, what, advice)
    return Finding(_DATABASE, "answers", Status.PASS, what)


def _check_schema(facts: DatabaseFacts) -> Finding:
    if facts.schema == facts.needs_schema:
        return Finding(_DATABASE, "schema", Status.PASS, f"{facts.schema}, this version's")
    what = f"{facts.schema or 'none'}; this docmill needs {facts.needs_schema}"
    advice = "`docmill db upgrade`; where a newer docmill made it, upgrade docmill here"
    return Finding(_DATABASE, "schema", Status.FAIL, what, advice)


def check_broker(facts: BrokerFacts) -> Iterator[Finding]:
    """Answers, is fast, keeps what it is given, has our time."""
    if not facts.is_running:
        if facts.can_embed:
            what = "the embedded one, not running now; `docmill run` and `docmill up` start it"
            yield Finding(_BROKER, "answers", Status.PASS, what)
        else:
            advice = "pip install 'docmill[embedded]', or set broker.url to a Redis or Valkey"
            yield Finding(_BROKER, "answers", Status.FAIL, "none is configured, and none can be started", advice)
        return
    if facts.health is None:
        advice = "`docmill up` starts it anew" if facts.is_embedded else "start it, or correct broker.url"
        yield Finding(_BROKER, "answers", Status.FAIL, facts.error, advice)
        return
    health = facts.health
    where = "the embedded one" if facts.is_embedded else facts.url
    what = f"{health.server}, {where}, in {health.ping_s * 1000:.1f} ms (median)"
    if health.ping_s > _SLOW_BROKER_S:
        advice = "workers fetch every job from it: bring it nearer"
        yield Finding(_BROKER, "answers", Status.WARN, what, advice)
    else:
        yield Finding(_BROKER, "answers", Status.PASS, what)
    yield from _check_keeping(health)
    if not facts.is_embedded:
        yield _check_clock(_BROKER, health.clock_offset_s, health.ping_s)


def _check_keeping(health: BrokerHealth) -> Iterator[Finding]:
    """Whether messages survive a restart and are never thrown away for want of memory."""
    if health.last_write_failed:
        what, advice = "its last write failed", "its disk is full or broken: see its log"
        yield Finding(_BROKER, "persistence", Status.FAIL, what, advice)
    elif health.append_only:
        yield Finding(_BROKER, "persistence", Status.PASS, "appendonly yes")
    else:
        advice = (
            "a restart loses its messages, and the dispatcher takes a minute to announce them again: "
            "appendonly yes, appendfsync everysec"
        )
        yield Finding(_BROKER, "persistence", Status.WARN, "appendonly no", advice)
    if health.eviction not in ("noeviction", ""):
        advice = "it throws messages away when its memory is full: maxmemory-policy noeviction"
        yield Finding(_BROKER, "memory", Status.WARN, f"maxmemory-policy {health.eviction}", advice)
    elif health.max_memory_bytes and health.used_memory_bytes > _NEARLY_FULL * health.max_memory_bytes:
        what = f"{health.used_memory_bytes / 1e6:,.0f} MB of maxmemory {health.max_memory_bytes / 1e6:,.0f} MB used"
        yield Finding(_BROKER, "memory", Status.WARN, what, "raise maxmemory: full, it takes no further job")
    else:
        limit = f" of {health.max_memory_bytes / 1e6:,.0f}" if health.max_memory_bytes else ""
        what = f"{health.used_memory_bytes / 1e6:,.1f}{limit} MB used, {health.eviction or 'policy not told'}"
        yield Finding(_BROKER, "memory", Status.PASS, what)


def check_work(work: Work) -> Iterator[Finding]:
    """Whether somebody is there for what waits."""
    yield from _check_workers(work)
    if work.late_leases or work.starved:
        late = f"{_jobs(work.late_leases)} of dead workers not queued again" if work.late_leases else ""
        starved = f"jobs for {', '.join(work.starved)} wait and were not announced" if work.starved else ""
        what = "; ".join(part for part in (late, starved) if part)
        advice = "no dispatcher seems to run on this database and broker: `docmill dispatcher`, or `docmill up`"
        yield Finding(_SERVICES, "dispatcher", Status.WARN, what, advice)
    elif work.jobs:
        yield Finding(_SERVICES, "dispatcher", Status.PASS, "nothing waits that it should have done")
    else:
        yield Finding(_SERVICES, "dispatcher", Status.PASS, "nothing to do for one: no batch is in progress")


def _check_workers(work: Work) -> Iterator[Finding]:
    alive = [worker for worker in work.workers if worker.is_alive]
    gone = [worker for worker in work.workers if not worker.is_alive]
    unserved = {model: jobs for model, jobs in work.jobs.items() if model not in {worker.model for worker in alive}}
    for model, jobs in unserved.items():
        what = f"{_jobs(jobs)} open for {model}, and no worker that serves it was seen for {WORKER_SEEN_S:.0f} s"
        yield Finding(_SERVICES, "workers", Status.WARN, what, f"`docmill worker --model {model}` where it can run")
    if gone:
        names = ", ".join(worker.name for worker in gone[:3]) + (" ..." if len(gone) > 3 else "")
        what = f"{len(gone)} ended without a word: {names}"
        yield Finding(_SERVICES, "workers", Status.WARN, what, "see their logs, or the kernel's (out of memory?)")
    if alive:
        paused = sum(worker.is_paused for worker in alive)
        shown = ", ".join(f"{worker.name} ({worker.running} of {worker.slots} slots)" for worker in alive[:4])
        more = f" and {len(alive) - 4} more" if len(alive) > 4 else ""
        what = f"{len(alive)} at work{f', {paused} of them paused' if paused else ''}: {shown}{more}"
        yield Finding(_SERVICES, "workers", Status.PASS, what)
    elif not unserved and not gone:
        yield Finding(_SERVICES, "workers", Status.PASS, "none at work, and none is needed")


def _check_clock(section: str, offset_s: float, ping_s: float) -> Finding:
    what = f"{abs(offset_s):.2f} s {'ahead of' if offset_s > 0 else 'behind'} this host's"
    if abs(offset_s) > _SKEW_S + ping_s / 2:
        advice = "leases and times are the database's and stay right; Flower and logs do not: run NTP on both"
        return Finding(section, "clock", Status.WARN, what, advice)
    return Finding(section, "clock", Status.PASS, what)


def _jobs(number: int) -> str:
    return f"{number:,} {'job' if number == 1 else 'jobs'}"


def _how_to_get(model: ModelFacts) -> str:
    if "docmill models" in model.error:
        return ""
    return f"`docmill models pull {model.name}`, or another llm.model"
