"""Documents that are in memory already: texts with ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from docmill.producer.errors import ProducerError, RecordInvalid
from docmill.producer.printable_names import printable_name


@dataclass(frozen=True, slots=True)
class Record:
    """A text in memory. Its `id` becomes the document's name, so that results can be matched to their texts."""

    id: str
    text: str


def records_of(
    texts: Mapping[str, str] | None,
    rows: Iterable[Record | Mapping[str, Any]] | None,
    *,
    id_field: str,
    text_field: str,
) -> list[Record]:
    """The records of `{id: text}` and of rows.

    Raises ProducerError for arguments of other types, RecordInvalid for a missing field and an unusable id.
    """
    if texts is not None and not isinstance(texts, Mapping):
        raise ProducerError(f"texts must be a mapping {{id: text}}, not {type(texts).__name__}")
    if rows is not None and (isinstance(rows, str | Mapping) or not isinstance(rows, Iterable)):
        raise ProducerError(f"records must be an iterable of records or rows, not {type(rows).__name__}")
    found: dict[str, Record] = {}
    for place, record in enumerate(_all(texts or {}, rows or (), id_field, text_field)):
        if not isinstance(record.id, str) or not record.id.strip():
            raise RecordInvalid(place, f"its id is {record.id!r}; an id is a text that is not empty")
        if printable_name(record.id) != record.id:
            raise RecordInvalid(place, f"its id {record.id!r} has control characters")
        if record.id in found:
            raise RecordInvalid(place, f"an earlier record has the id {record.id!r}, too; ids must be unique")
        found[record.id] = record
    return list(found.values())


def _all(
    texts: Mapping[str, str], rows: Iterable[Record | Mapping[str, Any]], id_field: str, text_field: str
) -> Iterator[Record]:
    for name, text in texts.items():
        yield Record(name, text)
    for place, row in enumerate(rows, len(texts)):
        if isinstance(row, Record):
            yield row
            continue
        if not isinstance(row, Mapping):
            raise RecordInvalid(place, f"it is of type {type(row).__name__}; give a Record or a mapping")
        for field in (id_field, text_field):
            if field not in row:
                raise RecordInvalid(place, f"it has no field {field!r} (it has {', '.join(map(str, row))})")
        row_id = row[id_field]
        yield Record(str(row_id) if type(row_id) is int else row_id, row[text_field])
