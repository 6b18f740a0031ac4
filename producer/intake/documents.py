"""Documents, and inputs that give none."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from docmill.producer.intake.text_encoding import without_surrogates


@dataclass(frozen=True, slots=True)
class Document:
    """One text to process. `open` yields it in pieces from the beginning, as often as it is called."""

    name: str
    source: str
    open: Callable[[], Iterator[str]]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Skipped:
    """An input that gives no document, and why."""

    name: str
    reason: str


def content_hash_of(document: Document) -> str:
    """SHA-256 of the document's text, by which a document is recognized when it is read again."""
    digest = hashlib.sha256()
    for piece in document.open():
        digest.update(piece.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def identity_of(document: Document, content_hash: str) -> str:
    """SHA-256 of a document's source, name and content hash."""
    return hashlib.sha256(f"{document.source}\0{document.name}\0{content_hash}".encode()).hexdigest()


def checked(document: Document) -> Document | Skipped:
    """Read the document to its end, so that a damaged file is found before anything is stored. Skips empty texts."""
    has_text = False
    for piece in document.open():
        has_text = has_text or not piece.isspace()
    return document if has_text else Skipped(document.name, "it is empty")


def document_of(name: str, source: str, text: object, warnings: tuple[str, ...] = ()) -> Document | Skipped:
    """The document of a text in memory, its line ends as newlines. Skips empty texts and what is not a text."""
    if not isinstance(text, str):
        return Skipped(name, f"its text is {type(text).__name__}, not a string")
    if not text.strip():
        return Skipped(name, "it is empty")
    normal = without_surrogates(text.replace("\r\n", "\n").replace("\r", "\n"))
    return Document(name, source, lambda: iter([normal]), warnings)
