"""Each check of database, broker, workers and model on made-up facts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from docmill.broker.broker_health import BrokerHealth
from docmill.insight.checkup.service_checks import check_broker, check_database, check_model, check_work
from docmill.insight.checkup.service_facts import BrokerFacts, DatabaseFacts, ModelFacts
from docmill.insight.findings import Finding, Status
from docmill.storage.reads.health import OpenWork, ResponseTime, WorkerHealth
from tests.unit.insight.machines import GIB, machine

PASS, WARN, FAIL = Status.PASS, Status.WARN, Status.FAIL
POSTGRES = DatabaseFacts("postgresql://db/x", False, True, "0002", answer=ResponseTime(0.001, 0.01), schema="0002")
SQLITE = DatabaseFacts("sqlite:////h/d.db", True, True, "0002", "ext4", answer=ResponseTime(0.0001, 0.0), schema="0002")
HEALTHY = BrokerHealth("Valkey 9.1", 0.0005, 0.01, True, False, "noeviction", 10**6, 0)
BROKER = BrokerFacts("redis://b:6379/0", is_embedded=False, is_running=True, can_embed=False, health=HEALTHY)
WORKER = WorkerHealth("box/gpu0", "m", 16, 4, 2.0, is_paused=False)
IDLE = OpenWork({}, 0, (), ())


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


@pytest.mark.parametrize("facts", [POSTGRES, SQLITE], ids=["postgres", "sqlite"])
def test_a_good_database_passes(facts: DatabaseFacts) -> None:
    findings = list(check_database(facts))
    assert {finding.status for finding in findings} == {PASS}
    assert ("clock" in by_check(findings)) == (not facts.is_sqlite)  # SQLite's clock is this host's


@pytest.mark.parametrize(
    ("facts", "check", "status", "said"),
    [
        (replace(POSTGRES, error="it failed"), "answers", FAIL, "storage.url"),
        (replace(POSTGRES, answer=ResponseTime(0.05, 0.0)), "answers", WARN, "nearer"),
        (replace(POSTGRES, answer=ResponseTime(0.001, -7.0)), "clock", WARN, "NTP"),
        (
            replace(POSTGRES, answer=ResponseTime(6.0, 4.0)),
            "clock",
            PASS,
            "",
        ),  # within what the slow answer leaves open
        (replace(POSTGRES, schema="0001"), "schema", FAIL, "docmill db upgrade"),
        (replace(POSTGRES, schema=None), "schema", FAIL, "docmill db upgrade"),
        (replace(SQLITE, filesystem="nfs4"), "file system", WARN, "Postgres"),
        (replace(SQLITE, filesystem="cifs", is_there=False), "file system", WARN, "Postgres"),
        (replace(SQLITE, is_there=False, answer=None, schema=None), "answers", PASS, ""),
    ],
)
def test_a_database_problem_is_reported_with_advice(
    facts: DatabaseFacts, check: str, status: Status, said: str
) -> None:
    finding = by_check(list(check_database(facts)))[check]
    assert (finding.status, said in finding.advice) == (status, True)


def test_a_good_broker_passes() -> None:
    assert {finding.status for finding in check_broker(BROKER)} == {PASS}


@pytest.mark.parametrize(
    ("health", "check", "status", "said"),
    [
        (replace(HEALTHY, ping_s=0.03), "answers", WARN, "nearer"),
        (replace(HEALTHY, append_only=False), "persistence", WARN, "appendonly yes"),
        (replace(HEALTHY, last_write_failed=True), "persistence", FAIL, "disk"),
        (replace(HEALTHY, eviction="allkeys-lru"), "memory", WARN, "noeviction"),
        (replace(HEALTHY, used_memory_bytes=90, max_memory_bytes=100), "memory", WARN, "raise maxmemory"),
        (replace(HEALTHY, used_memory_bytes=50, max_memory_bytes=100), "memory", PASS, ""),
        (replace(HEALTHY, clock_offset_s=-30.0), "clock", WARN, "NTP"),
    ],
)
def test_a_broker_problem_is_reported_with_advice(health: BrokerHealth, check: str, status: Status, said: str) -> None:
    finding = by_check(list(check_broker(replace(BROKER, health=health))))[check]
    assert (finding.status, said in finding.advice) == (status, True)


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        (BrokerFacts("", is_embedded=True, is_running=False, can_embed=True), PASS),
        (BrokerFacts("", is_embedded=True, is_running=False, can_embed=False), FAIL),
        (replace(BROKER, health=None, error="no answer"), FAIL),
    ],
)
def test_a_stopped_broker_fails_unless_docmill_can_start_its_own(facts: BrokerFacts, status: Status) -> None:
    (finding,) = check_broker(facts)
    assert finding.status is status


def test_work_with_a_worker_and_a_dispatcher_passes() -> None:
    findings = list(check_work(replace(IDLE, jobs={"m": 10}, workers=(WORKER,))))
    assert {finding.status for finding in findings} == {PASS}
    assert "box/gpu0 (4 of 16 slots)" in findings[0].what


def test_an_idle_system_passes() -> None:
    assert {finding.status for finding in check_work(IDLE)} == {PASS}


@pytest.mark.parametrize(
    ("work", "check", "said"),
    [
        (replace(IDLE, jobs={"m": 10, "n": 5}, workers=(WORKER,)), "workers", "`docmill worker --model n`"),
        (replace(IDLE, jobs={"m": 10}, workers=(replace(WORKER, seen_ago_s=600),)), "workers", "logs"),
        (replace(IDLE, late_leases=3), "dispatcher", "`docmill dispatcher`"),
        (replace(IDLE, starved=("m",)), "dispatcher", "`docmill dispatcher`"),
    ],
)
def test_open_work_without_a_worker_or_dispatcher_warns(work: OpenWork, check: str, said: str) -> None:
    warned = [finding for finding in check_work(work) if finding.status is WARN]
    assert {finding.check for finding in warned} == {check}
    assert any(said in finding.advice for finding in warned)


@pytest.mark.parametrize(
    ("model", "memory", "vram", "status"),
    [
        (ModelFacts("m", "openvino", GIB, GIB), 8, (), PASS),
        (ModelFacts("m", "openvino", 7 * GIB, 2 * GIB), 8, (), FAIL),
        (ModelFacts("m", "exllamav2", 4 * GIB, GIB, is_on_gpu=True), 8, (), FAIL),
        (ModelFacts("m", "exllamav2", 4 * GIB, GIB, is_on_gpu=True), 8, (8,), PASS),
        (ModelFacts("m", "exllamav2", 6 * GIB, 2 * GIB, is_on_gpu=True), 8, (8,), WARN),
        (ModelFacts("m", error="there is no model m"), 8, (), WARN),
    ],
)
def test_the_profiles_model_must_be_downloaded_and_fit(
    model: ModelFacts, memory: int, vram: tuple[float, ...], status: Status
) -> None:
    assert check_model(model, machine(8, memory, vram)).status is status
