from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from docmill.storage.database import Database
from tests.unit.cli.conftest import Docmill
from tests.unit.insight.report.batches import Try, add_workers, store


@pytest.fixture
def batches(environment: Path, tmp_path: Path, migrated: Path) -> list[str]:
    """Two batches, the second twice as fast."""
    (tmp_path / "home").mkdir()
    shutil.copy(migrated, tmp_path / "home" / "docmill.db")
    database = Database(f"sqlite:///{tmp_path}/home/docmill.db")
    add_workers(database, {"w1": 2})
    stored = [store(database, [Try(at, decode=decode) for at in range(5)]).batch for decode in (2.0, 1.0)]
    database.close()
    return stored


def test_report_writes_one_page_named_by_its_batch(docmill: Docmill, environment: Path, batches: list[str]) -> None:
    done = docmill("report", batches[0])
    assert (done.code, done.out) == (0, "")
    assert done.err.startswith(f"wrote docmill-report-{batches[0]}.html (")
    page = (environment / f"docmill-report-{batches[0]}.html").read_text(encoding="utf-8")
    assert "5 of 5\u00a0jobs succeeded" in page
    assert "<h2>Cost" not in page


def test_report_knows_prices_and_an_earlier_batch(docmill: Docmill, environment: Path, batches: list[str]) -> None:
    prices = ("--price-per-hour", "3600", "--energy-price", "0.5", "--watts", "100", "--currency", "EUR")
    assert docmill("report", batches[1], "--against", batches[0], "--out", "r.html", *prices).code == 0
    page = (environment / "r.html").read_text(encoding="utf-8")
    assert f"Compared with batch {batches[0]}" in page
    assert "6.00\u00a0EUR" in page


def test_json_prints_the_numbers_and_needs_no_matplotlib(
    docmill: Docmill, environment: Path, batches: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    record = docmill("report", batches[1], "--json", "--against", batches[0]).json
    assert record["durations"]["decode"]["p99"] == 1.0
    assert record["against"]["measures"]["decode_p99_s"] == {
        "this": 1.0, "earlier": 2.0, "ratio": 0.5, "verdict": "better",
    }  # fmt: skip
    assert record["cost"] is None
    assert list(environment.iterdir()) == []


def test_without_matplotlib_the_extra_is_named_and_nothing_written(
    docmill: Docmill, environment: Path, batches: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = docmill("report", batches[0])
    assert (done.code, done.out) == (1, "")
    assert "pip install 'docmill[report]'" in done.err
    assert list(environment.iterdir()) == []


@pytest.mark.parametrize("wrong", [("--watts", "90"), ("--price-per-hour", "-1"), ("--against", "nowhere")], ids=str)
def test_wrong_use_is_refused(docmill: Docmill, batches: list[str], wrong: tuple[str, str]) -> None:
    assert docmill("report", batches[0], *wrong).code == 2


def test_a_directory_that_is_not_there_is_said(docmill: Docmill, batches: list[str]) -> None:
    done = docmill("report", batches[0], "--out", "nowhere/report.html")
    assert done.code == 1
    assert done.err.startswith("docmill: nowhere/report.html: ")
