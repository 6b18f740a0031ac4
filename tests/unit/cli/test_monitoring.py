"""What Prometheus is given, and that the dashboard and the alerts in deploy/ ask only for that."""

from __future__ import annotations

import json
import logging
import re
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from docmill.broker.errors import MetricsPortTaken
from docmill.broker.prometheus_endpoint import MetricsEndpoint, export
from docmill.cli.services.logs import configure_logging
from docmill.producer.dispatcher import DispatchCounts
from docmill.producer.dispatcher_metrics import DispatcherMetrics
from docmill.settings.errors import SettingsError
from docmill.storage.attempt_metrics import GeneratedText
from docmill.storage.database import Database
from docmill.storage.moves.attempts import Failure, WorkerIdentity
from docmill.storage.reads.reports import Reports
from docmill.worker.engines.base import EngineFacts
from docmill.worker.job_events import JobLog, JobObserver, ObservedJobs
from docmill.worker.telemetry.prometheus import WorkerMetrics
from tests.integration.test_flower import free_port
from tests.unit.worker.conftest import LEASE_S, Stored, migrated, stored

__all__ = ["migrated", "stored"]
DEPLOY = Path(__file__).parents[3] / "deploy"
IDENTITY = WorkerIdentity("host/cpu-1", "simulated", "simulated")
ANSWER = GeneratedText(
    text="t", finish_reason="stop", prompt_tokens=100, cached_tokens=40, completion_tokens=11, queue_s=0.5,
    prefill_s=1.5, decode_s=2.0, batch_size=1.0, peak_memory_bytes=1,
)  # fmt: skip


@dataclass
class Engine:
    """The numbers that a batcher tells."""

    in_flight: int = 7
    engine_pid: int | None = None
    engine_crashes: int = 3


@pytest.fixture
def registry(stored: Stored) -> CollectorRegistry:
    """Of a worker with four slots and of the dispatcher of its database."""
    made = CollectorRegistry()
    made.register(DispatcherMetrics(DispatchCounts(published=9, rescued=2), Reports(stored.database)))
    return made


@pytest.fixture
def metrics(registry: CollectorRegistry) -> WorkerMetrics:
    return WorkerMetrics(registry, IDENTITY, EngineFacts("simulated", "simulated", 100, 4, "f"), Engine())


def observed(stored: Stored, *observers: JobObserver) -> ObservedJobs:
    return ObservedJobs(stored.database, IDENTITY, lease_s=LEASE_S, observers=observers)


def samples(registry: CollectorRegistry) -> dict[tuple[str, tuple[str, ...]], float]:
    """By name and label values, as Prometheus reads it."""
    text = generate_latest(registry).decode()
    return {
        (sample.name, tuple(value for name, value in sorted(sample.labels.items()) if name not in ("model", "le"))): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_end_of_a_job_is_counted_once_with_its_tokens_and_times(
    stored: Stored, registry: CollectorRegistry, metrics: WorkerMetrics
) -> None:
    jobs = observed(stored, metrics)
    done, failed, released, again = (jobs.claim(job_id) for job_id in stored.job_ids)
    jobs.complete(done, ANSWER)  # type: ignore[arg-type]
    jobs.fail(failed, Failure("EngineDied", "it died"))  # type: ignore[arg-type]
    jobs.release(released)  # type: ignore[arg-type]
    jobs.release(released)  # type: ignore[arg-type] # no longer ours
    jobs.retry(again, Failure("EngineFailed", "it failed"), delay_s=60)  # type: ignore[arg-type]
    now = samples(registry)
    outcomes = {key[1][0]: value for key, value in now.items() if key[0] == "docmill_jobs_total"}
    assert outcomes == {"succeeded": 1, "failed": 1, "released": 1, "retried": 1, "fenced": 1, "reused": 0}
    assert now["docmill_job_failures_total", ("EngineDied",)] == 1
    assert now["docmill_prompt_tokens_total", ()] == 100
    assert now["docmill_cached_prompt_tokens_total", ()] == 40
    assert now["docmill_generation_tokens_total", ()] == 11
    assert now["docmill_time_to_first_token_seconds_sum", ()] == 2.0
    assert now["docmill_job_duration_seconds_sum", ()] == 4.0
    assert now["docmill_time_per_output_token_seconds_sum", ()] == 0.2
    assert now["docmill_slots_in_use", ()] == 4
    assert now["docmill_lookahead_jobs", ()] == 3
    assert now["docmill_engine_deaths_total", ()] == 3


def test_the_dispatcher_shows_the_queues_as_the_database_has_them(stored: Stored, registry: CollectorRegistry) -> None:
    stored.set_job(stored.job_ids[0], "published_at = 1")
    observed(stored).claim(stored.job_ids[1])
    stored.workers().register(slots=16)
    now = samples(registry)
    assert now["docmill_queue_depth", ()] == 1
    assert now["docmill_jobs_running", ()] == 1
    assert now["docmill_jobs_waiting", ()] == 2
    assert now["docmill_workers", ()] == 1
    assert now["docmill_workers_slots", ()] == 16
    assert now["docmill_batches_in_progress", ()] == 1
    assert now["docmill_dispatcher_rescued_total", ()] == 2
    assert now["docmill_database_up", ()] == 1


def test_a_paused_batch_is_no_stuck_queue(stored: Stored, registry: CollectorRegistry) -> None:
    with stored.database.write() as session:
        session.connection().exec_driver_sql("UPDATE batches SET paused_at = 1")
    assert ("docmill_jobs_waiting", ()) not in samples(registry)


def test_a_database_that_is_away_is_shown_and_hides_nothing_else(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    reports = Reports(Database(f"sqlite:///{tmp_path / 'empty.db'}"))
    registry.register(DispatcherMetrics(DispatchCounts(published=9), reports))
    now = samples(registry)
    assert now["docmill_database_up", ()] == 0
    assert now["docmill_dispatcher_published_total", ()] == 9


def test_metrics_are_served_on_loopback_and_a_taken_port_is_said() -> None:
    port = free_port()
    export(MetricsEndpoint(port, "127.0.0.1"))
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert b"process_resident_memory_bytes" in answer.read()
    with pytest.raises(MetricsPortTaken, match=rf"127.0.0.1:{port}: Address already in use"):
        export(MetricsEndpoint(port, "127.0.0.1"))


def dashboard_expressions() -> Iterator[str]:
    dashboard = json.loads((DEPLOY / "grafana" / "docmill.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield target["expr"].replace("$__rate_interval", "5m")


def alert_expressions() -> Iterator[str]:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]


@pytest.mark.parametrize("expressions", [dashboard_expressions, alert_expressions])
def test_dashboard_and_alerts_parse_and_ask_for_what_is_exported(
    expressions: Any, registry: CollectorRegistry, metrics: WorkerMetrics, stored: Stored
) -> None:
    stored.workers().register(slots=4)
    jobs = observed(stored, metrics)
    jobs.fail(jobs.claim(stored.job_ids[0]), Failure("k", "m"))  # type: ignore[arg-type]
    exported = {name for name, _ in samples(registry)}
    asked = list(expressions())
    assert len(asked) > 5
    for expression in asked:
        promql_parser.parse(expression)
        assert set(re.findall(r"docmill_\w+", expression)) <= exported


def test_a_json_log_has_one_line_an_event_with_its_ids(
    stored: Stored, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCMILL_LOG_FORMAT", "json")
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        configure_logging()
        jobs = observed(stored, JobLog())
        done, failed = (jobs.claim(job_id) for job_id in stored.job_ids[:2])
        jobs.complete(done, ANSWER)  # type: ignore[arg-type]
        jobs.fail(failed, Failure("EngineDied", "two\nlines"))  # type: ignore[arg-type]
    finally:
        root.handlers[:], root.level = before
    success, failure = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (success["event"], success["batch"], success["job"], success["attempt"]) == (
        "succeeded", stored.batch_id, stored.job_ids[0], 1,
    )  # fmt: skip
    assert (success["level"], success["completion_tokens"]) == ("INFO", 11)
    assert (failure["level"], failure["event"], failure["error"]) == ("WARNING", "failed", "two\nlines")


def test_an_unknown_log_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCMILL_LOG_FORMAT", "xml")
    with pytest.raises(SettingsError, match="DOCMILL_LOG_FORMAT is 'xml'; use text or json"):
        configure_logging()
