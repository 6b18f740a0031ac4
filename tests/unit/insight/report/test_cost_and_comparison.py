from __future__ import annotations

from dataclasses import replace

import pytest

from docmill.insight.report.comparison import Verdict, compare
from docmill.insight.report.cost import Cost, EnergyBasis, Prices, cost_of
from docmill.insight.report.report_data import ReportData, read_report
from docmill.storage.database import Database
from tests.unit.insight.report.batches import Try, store

KWH = 3.6e6
HOUR = 3600.0


@pytest.fixture
def two_hours(sqlite: Database) -> ReportData:
    """Two workers, an hour each, whose energy was not measured."""
    tries = [
        Try(0, prefill=HOUR / 2, decode=HOUR / 2, prompt=900_000, completion=100_000, worker=w) for w in ("w1", "w2")
    ]
    return read_report(sqlite, store(sqlite, tries, documents=("a", "b", "c", "d")).batch)


def test_workers_cost_their_hours(two_hours: ReportData) -> None:
    cost = cost_of(two_hours, Prices(per_hour=0.5))
    assert cost.machines == cost.total == pytest.approx(1.0)
    assert cost.energy is None
    assert cost.per_document == pytest.approx(0.25)
    assert cost.per_million_tokens == pytest.approx(0.5)


def test_unmeasured_energy_has_no_cost_until_watts_are_assumed(two_hours: ReportData) -> None:
    unknown = cost_of(two_hours, Prices(per_kwh=0.3))
    assert (unknown.energy_kwh, unknown.energy_basis, unknown.total) == (None, None, None)
    assumed = cost_of(two_hours, Prices(per_kwh=0.3, watts=250))
    assert assumed.energy_basis is EnergyBasis.ASSUMED
    assert assumed.energy_kwh == pytest.approx(0.5)
    assert assumed.total == pytest.approx(0.15)


def test_measured_energy_has_priority_and_partly_measured_energy_is_marked(sqlite: Database) -> None:
    def cost(*joules: float | None, watts: float | None = None) -> Cost:
        tries = [Try(at, energy=energy) for at, energy in enumerate(joules)]
        return cost_of(read_report(sqlite, store(sqlite, tries).batch), Prices(per_hour=None, per_kwh=0.4, watts=watts))

    whole = cost(KWH, KWH, watts=1e6)
    assert (whole.energy_basis, whole.energy_kwh) == (EnergyBasis.MEASURED, 2.0)
    assert whole.energy == pytest.approx(0.8)
    part = cost(KWH, None)
    assert (part.energy_basis, part.energy_kwh) == (EnergyBasis.PARTLY, 1.0)
    assert cost(KWH, None, watts=100).energy_basis is EnergyBasis.ASSUMED


def test_an_empty_batch_has_no_cost_per_document(sqlite: Database) -> None:
    nothing = cost_of(
        read_report(sqlite, store(sqlite, [], documents=()).batch), Prices(per_hour=1.0, per_kwh=1.0, watts=9)
    )
    assert (nothing.total, nothing.per_document, nothing.per_million_tokens) == (0.0, None, None)


def test_a_comparison_judges_each_measure(sqlite: Database) -> None:
    earlier = read_report(sqlite, store(sqlite, [Try(at, decode=2.0, memory=1 << 30) for at in range(4)]).batch)
    this = read_report(
        sqlite, store(sqlite, [Try(at, decode=1.0, memory=2 << 30, prompt=101) for at in range(4)]).batch
    )
    prices = Prices(per_hour=1.0)
    found = compare(this, earlier, cost_of(this, prices), cost_of(earlier, prices))
    rows = {row.key: row for row in found.measures}
    assert (rows["decode_p50_s"].ratio, rows["decode_p50_s"].verdict) == (0.5, Verdict.BETTER)
    assert (rows["peak_memory_bytes"].ratio, rows["peak_memory_bytes"].verdict) == (2.0, Verdict.WORSE)
    assert rows["tokens_per_s"].verdict is Verdict.BETTER
    assert rows["prefill_p99_s"].verdict is Verdict.SAME
    assert rows["prompt_tokens"].verdict is Verdict.NEUTRAL
    assert (rows["failure_share"].ratio, rows["failure_share"].verdict) == (None, Verdict.SAME)
    assert rows["cost"].verdict is Verdict.BETTER
    assert "peak_vram_bytes" not in rows
    assert found.remarks == ()


def test_measures_that_grow_with_the_work_are_not_judged_for_different_amounts(sqlite: Database) -> None:
    earlier = read_report(sqlite, store(sqlite, [Try(at) for at in range(4)]).batch)
    this = read_report(sqlite, store(sqlite, [Try(at, waited=9.0, decode=3.0) for at in range(9)]).batch)
    prices = Prices(per_hour=1.0)
    found = compare(this, earlier, cost_of(this, prices), cost_of(earlier, prices))
    rows = {row.key: row.verdict for row in found.measures}
    assert {rows[key] for key in ("working_s", "wait_p50_s", "cost")} == {Verdict.NEUTRAL}
    assert rows["decode_p50_s"] is Verdict.WORSE
    assert rows["cost_per_million_tokens"] is not Verdict.NEUTRAL


def test_a_comparison_lists_the_differences_between_the_batches(two_hours: ReportData, sqlite: Database) -> None:
    other = read_report(sqlite, store(sqlite, [], documents=(), model="another", task="outline").batch)
    cost = cost_of(two_hours, Prices())
    remarks = " ".join(compare(two_hours, other, cost, cost_of(other, Prices())).remarks)
    for text in (
        "model differs: a model in this batch, another in",
        "task differs",
        "engine differs",
        "slots differs",
    ):
        assert text in remarks
    assert "amount of work differs: 2,000,000 tokens in this batch, 0 in the earlier one" in remarks
    same = replace(other, outcomes=two_hours.outcomes, status=two_hours.status, workers=two_hours.workers)
    assert compare(two_hours, same, cost, cost).remarks == ()
