"""The document formats: one module each, found by the suffix of the file's name."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from docmill.producer.errors import DocumentUnreadable
from docmill.producer.intake.blobs import Blob
from docmill.producer.intake.documents import Document, Skipped
from docmill.producer.intake.formats.csv_rows import read_csv
from docmill.producer.intake.formats.html import read_html
from docmill.producer.intake.formats.json_lines import read_json_lines
from docmill.producer.intake.formats.plain_text import read_plain_text
from docmill.settings.defaults import Producer

Reader = Callable[[Blob, Producer], Iterator[Document | Skipped]]

# A reader yields the documents of a file. It raises DocumentUnreadable, or yields Skipped for what it cannot read.
READERS: dict[str, Reader] = {
    **dict.fromkeys((".txt", ".md", ".markdown", ".rst", ".text"), read_plain_text),
    **dict.fromkeys((".html", ".htm", ".xhtml"), read_html),
    **dict.fromkeys((".jsonl", ".ndjson"), read_json_lines),
    ".csv": read_csv,
}


def documents_of(blob: Blob, options: Producer) -> Iterator[Document | Skipped]:
    """The documents in a file; a file of an unknown suffix is read as plain text."""
    try:
        yield from READERS.get(blob.suffix, read_plain_text)(blob, options)
    except DocumentUnreadable as error:
        yield Skipped(error.name, error.reason)
