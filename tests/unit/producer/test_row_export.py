from __future__ import annotations

import csv
import io
import json
import sys
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet
import pytest

import docmill.producer.row_export
from docmill.producer.row_export import ParquetNotInstalled, write_csv, write_jsonl, write_parquet
from docmill.storage.views import Kind, Rows

COLUMNS: dict[str, Kind] = {"job": int, "seconds": float, "text": str}
VALUES: list[tuple[object, ...]] = [
    (1, 0.25, 'A "quoted" text,\nof two lines. 東京'),
    (2, None, None),
    (1 << 40, 1e-9, ""),
]


def rows(values: Sequence[tuple[object, ...]] | Iterator[tuple[object, ...]] = VALUES) -> Rows:
    return Rows(COLUMNS, iter(values))


def endless(count: int) -> Iterator[tuple[object, ...]]:
    return ((number, number / 2, f"text {number} " + "x" * 100) for number in range(count))


def test_a_json_object_a_line() -> None:
    out = io.StringIO()
    assert write_jsonl(rows(), out) == 3
    assert [tuple(json.loads(line).values()) for line in out.getvalue().splitlines()] == VALUES


def test_csv_has_a_header_and_empty_fields_for_null() -> None:
    out = io.StringIO()
    assert write_csv(rows(), out) == 3
    header, first, second, _ = csv.reader(io.StringIO(out.getvalue()))
    assert (header, first, second) == (list(COLUMNS), ["1", "0.25", str(VALUES[0][2])], ["2", "", ""])


def test_parquet_holds_the_same_values_and_their_types(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    with path.open("wb") as out:
        assert write_parquet(rows(), out) == 3
    table = pyarrow.parquet.read_table(path)
    assert [str(kind) for kind in table.schema.types] == ["int64", "double", "string"]
    assert [tuple(row.values()) for row in table.to_pylist()] == VALUES


def test_parquet_without_rows_has_its_columns_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    with path.open("wb") as out:
        assert write_parquet(rows([]), out) == 0
    assert pyarrow.parquet.read_table(path).schema.names == list(COLUMNS)


def test_row_groups_are_bounded_by_rows_and_by_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.parquet"
    monkeypatch.setattr(docmill.producer.row_export, "_GROUP_ROWS", 100)
    with path.open("wb") as out:
        write_parquet(rows(endless(250)), out)
    metadata = pyarrow.parquet.ParquetFile(path).metadata
    assert [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)] == [100, 100, 50]
    monkeypatch.setattr(docmill.producer.row_export, "_GROUP_CHARACTERS", 1000)
    with path.open("wb") as out:
        write_parquet(rows(endless(20)), out)
    metadata = pyarrow.parquet.ParquetFile(path).metadata
    assert metadata.num_row_groups > 1
    assert metadata.num_rows == 20


def test_many_rows_take_no_more_memory_than_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docmill.producer.row_export, "_GROUP_ROWS", 1000)
    peaks: list[int] = []
    for count in (2_000, 20_000):
        tracemalloc.start()
        with (tmp_path / "x.csv").open("w") as out:
            write_csv(rows(endless(count)), out)
        with (tmp_path / "x.parquet").open("wb") as binary:
            write_parquet(rows(endless(count)), binary)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_without_pyarrow_the_extra_is_named_and_nothing_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    out = io.BytesIO()
    with pytest.raises(ParquetNotInstalled, match=r"pip install 'docmill\[parquet\]'"):
        write_parquet(rows(), out)
    assert out.getvalue() == b""


def test_duckdb_reads_parquet_csv_and_json_lines_alike(tmp_path: Path) -> None:
    with (tmp_path / "x.parquet").open("wb") as binary:
        write_parquet(rows(), binary)
    with (tmp_path / "x.csv").open("w", encoding="utf-8") as out:
        write_csv(rows(), out)
    with (tmp_path / "x.jsonl").open("w", encoding="utf-8") as out:
        write_jsonl(rows(), out)

    def read(name: str) -> list[tuple[Any, ...]]:
        return duckdb.sql(f"SELECT job, seconds, coalesce(text, '') FROM '{tmp_path / name}' ORDER BY job").fetchall()

    expected = [(job, seconds, text or "") for job, seconds, text in VALUES]
    assert [read(name) for name in ("x.parquet", "x.csv", "x.jsonl")] == [expected] * 3
