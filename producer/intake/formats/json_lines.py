"""JSON Lines: every line is a document, named by its number."""

from __future__ import annotations

import json
from collections.abc import Iterator

from docmill.producer.intake.blobs import Blob
from docmill.producer.intake.documents import Document, Skipped, document_of
from docmill.producer.intake.text_encoding import decode, lines_of
from docmill.settings.defaults import Producer


def read_json_lines(blob: Blob, options: Producer) -> Iterator[Document | Skipped]:
    """The documents of the lines that are not blank. Raises DocumentUnreadable."""
    text, field = decode(blob, options.encoding), options.text_field
    for number, line in enumerate(lines_of(text.open()), 1):
        if not line.strip():
            continue
        name = f"{blob.name}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Skipped(name, f"not JSON: {error}")
            continue
        if not isinstance(row, dict) or field not in row:
            has = ", ".join(map(str, row)) if isinstance(row, dict) else type(row).__name__
            yield Skipped(name, f"it has no field {field!r} (it has {has}); name it with --text-field")
            continue
        yield document_of(name, blob.source, row[field], text.warnings)
