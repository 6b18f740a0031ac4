"""Documents, and inputs that give none."""

from __future__ import annotations

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
