"""Everything that holds an attempt's metrics is generated from one list of fields."""

from __future__ import annotations

import sys
from dataclasses import fields
from subprocess import run

from docmill.storage.attempt_metrics import METRIC_TYPES, GeneratedText
from docmill.storage.tables import Attempt
from docmill.storage.views import VIEWS
from tests.unit.storage.conftest import Mill


def test_every_metric_is_a_nullable_column_of_the_table_and_of_both_views() -> None:
    assert METRIC_TYPES["queue_s"] is float
    assert METRIC_TYPES["cached_tokens"] is int
    for name, kind in METRIC_TYPES.items():
        assert Attempt.__table__.c[name].nullable
        assert VIEWS["v_jobs"][name] is kind
        assert VIEWS["v_attempts"][name] is kind


def test_every_metric_of_a_completed_job_is_stored(mill: Mill) -> None:
    names = [field.name for field in fields(GeneratedText) if field.name in METRIC_TYPES]
    values = {name: METRIC_TYPES[name](number) for number, name in enumerate(names, 1)}
    (job_id,) = mill.job_ids(mill.submit(1))
    mill.worker().complete(mill.claim(job_id), GeneratedText(text="t", finish_reason="stop", **values))  # type: ignore[arg-type]
    (stored,) = mill.attempts(job_id)
    assert {name: getattr(stored, name) for name in names} == values


def test_engine_processes_load_the_metrics_without_sqlalchemy() -> None:
    code = "import sys, docmill.storage.attempt_metrics; sys.exit('sqlalchemy' in sys.modules)"
    assert run([sys.executable, "-P", "-c", code], check=False).returncode == 0
