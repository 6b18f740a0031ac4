"""Plain text and Markdown: the file's text as it is."""

from __future__ import annotations

from collections.abc import Iterator

from docmill.producer.intake.blobs import Blob
from docmill.producer.intake.documents import Document, Skipped, checked
from docmill.producer.intake.text_encoding import decode
from docmill.settings.defaults import Producer


def read_plain_text(blob: Blob, options: Producer) -> Iterator[Document | Skipped]:
    """One document. Raises DocumentUnreadable."""
    text = decode(blob, options.encoding)
    yield checked(Document(blob.name, blob.source, text.open, text.warnings))
