"""CSV with a header: every row is a document, named by the number of its last line."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from docmill.producer.errors import DocumentUnreadable
from docmill.producer.intake.blobs import Blob
from docmill.producer.intake.documents import Document, Skipped, document_of
from docmill.producer.intake.text_encoding import decode, lines_of
from docmill.settings.defaults import Producer


def read_csv(blob: Blob, options: Producer) -> Iterator[Document | Skipped]:
    """The documents of the rows. Raises DocumentUnreadable, also if the text's column is missing."""
    text, field = decode(blob, options.encoding), options.text_field
    csv.field_size_limit(min(options.max_document_bytes, 2**31 - 1))
    line = 0  # the reader's own count omits lines that it rejects

    def lines() -> Iterator[str]:
        nonlocal line
        for content in lines_of(text.open()):
            line += 1
            yield content

    reader = csv.DictReader(lines(), strict=True)
    try:
        columns = reader.fieldnames or ()
    except csv.Error as error:
        raise DocumentUnreadable(blob.name, f"not CSV: {error}") from None
    if field not in columns:
        has = ", ".join(columns) or "nothing"
        raise DocumentUnreadable(blob.name, f"it has no column {field!r} (it has {has}); name it with --text-field")
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Skipped(f"{blob.name}:{line}", f"not CSV: {error}")
            continue
        yield document_of(f"{blob.name}:{line}", blob.source, row[field], text.warnings)
