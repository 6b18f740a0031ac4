"""Write the rows of a view as JSON Lines, CSV or Parquet, streamed in constant memory."""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Sequence
from typing import IO, Any, TextIO

from docmill.producer.errors import ProducerError
from docmill.storage.views import Kind, Rows

_GROUP_ROWS = 10_000
_GROUP_CHARACTERS = 32 << 20  # of text in one row group


class ParquetNotInstalled(ProducerError):
    """pyarrow is not installed."""

    def __init__(self) -> None:
        super().__init__("Parquet is written by pyarrow, which is not installed; pip install 'docmill[parquet]'")


def write_jsonl(rows: Rows, out: TextIO) -> int:
    """One JSON object per line. Returns the number of rows."""
    written = 0
    for written, row in enumerate(rows.values, 1):  # noqa: B007 - its last value is the count
        out.write(json.dumps(dict(zip(rows.columns, row, strict=True)), ensure_ascii=False) + "\n")
    return written


def write_csv(rows: Rows, out: TextIO) -> int:
    """A header and the rows; NULL is empty. Returns the number of rows."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(rows.columns)
    written = 0
    for written, row in enumerate(rows.values, 1):  # noqa: B007
        writer.writerow(row)
    return written


def write_parquet(rows: Rows, out: IO[bytes]) -> int:
    """Compressed row groups of at most 10,000 rows and about 32 MB of text. Returns the number of rows.

    Raises ParquetNotInstalled before anything is written.
    """
    try:
        pa: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ParquetNotInstalled from None
    types: dict[Kind, Any] = {int: pa.int64(), float: pa.float64(), str: pa.string()}
    schema = pa.schema([(name, types[kind]) for name, kind in rows.columns.items()])
    written = 0
    group: list[Sequence[Any]] = []
    characters = 0
    with parquet.ParquetWriter(out, schema, compression="zstd") as writer:

        def end_group() -> None:
            columns = zip(*group, strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_table(pa.table(arrays, schema=schema))

        for row in rows.values:
            written += 1
            group.append(row)
            characters += sum(len(value) for value in row if isinstance(value, str))
            if len(group) >= _GROUP_ROWS or characters >= _GROUP_CHARACTERS:
                end_group()
                group, characters = [], 0
        if group:
            end_group()
    return written
