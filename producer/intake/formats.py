"""From a blob to documents, by its format: text and Markdown as they are, HTML without tags, a row a document."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser

from docmill.producer.errors import DocumentUnreadable
from docmill.producer.intake.blobs import Blob
from docmill.producer.intake.text_encoding import decoded, find_encoding, without_surrogates

_HTML = frozenset({".html", ".htm", ".xhtml"})
_TEXT = frozenset({".txt", ".md", ".markdown", ".rst", ".text"})
_ROWS = frozenset({".jsonl", ".ndjson", ".csv"})
SUFFIXES = _TEXT | _HTML | _ROWS


@dataclass(frozen=True, slots=True)
class Document:
    """One text to work on. `open` yields it in pieces, from the beginning, as often as it is called."""

    name: str
    source: str
    open: Callable[[], Iterator[str]]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that is no document, and why."""

    name: str
    reason: str


def documents_of(blob: Blob, *, encoding: str | None, text_field: str, max_bytes: int) -> Iterator[Document | Skipped]:
    """The documents a blob holds; what cannot be read comes as Skipped."""
    try:
        found = find_encoding(blob, encoding)
        warnings = (found.warning,) if found.warning else ()
        if blob.suffix == ".csv":
            yield from _csv(blob, decoded(blob, found), text_field, warnings, max_bytes)
        elif blob.suffix in _ROWS:
            yield from _jsonl(blob, decoded(blob, found), text_field, warnings)
        elif blob.suffix in _HTML:
            text = _html(blob, decoded(blob, found))
            yield _checked(Document(blob.name, blob.source, lambda: iter([text]), warnings))
        else:
            yield _checked(Document(blob.name, blob.source, lambda: decoded(blob, found), warnings))
    except DocumentUnreadable as error:
        yield Skipped(error.name, error.reason)


def _html(blob: Blob, pieces: Iterator[str]) -> str:
    try:
        return html_to_text(pieces)
    except (AssertionError, RecursionError) as error:  # as html.parser says that it is lost
        raise DocumentUnreadable(blob.name, f"its HTML cannot be read: {error}") from error


def html_to_text(pieces: Iterator[str]) -> str:
    """The readable text of a page: blocks as paragraphs, headings with `#`, scripts and styles left out."""
    parser = _Text()
    parser.feed("".join(pieces))  # in one go: given in pieces, a long run of text is scanned again for each
    parser.close()
    return parser.text()


def _checked(document: Document) -> Document | Skipped:
    """Read the document to its end: a torn archive or a wrong byte shows here, before anything is stored."""
    has_text = False
    for piece in document.open():
        has_text = has_text or not piece.isspace()
    return document if has_text else Skipped(document.name, "it is empty")


def document_of(name: str, source: str, text: object, warnings: tuple[str, ...] = ()) -> Document | Skipped:
    """A text in memory as a document, with its line ends as newlines."""
    if not isinstance(text, str):
        return Skipped(name, f"its text is {type(text).__name__}, not a string")
    if not text.strip():
        return Skipped(name, "it is empty")
    normal = without_surrogates(text.replace("\r\n", "\n").replace("\r", "\n"))
    return Document(name, source, lambda: iter([normal]), warnings)


def _jsonl(blob: Blob, pieces: Iterator[str], field: str, warnings: tuple[str, ...]) -> Iterator[Document | Skipped]:
    for number, line in enumerate(_lines(pieces), 1):
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
        yield document_of(name, blob.source, row[field], warnings)


def _csv(
    blob: Blob, pieces: Iterator[str], field: str, warnings: tuple[str, ...], max_bytes: int
) -> Iterator[Document | Skipped]:
    csv.field_size_limit(min(max_bytes, 2**31 - 1))
    line = 0  # the reader's own count leaves out the lines that it refuses

    def lines() -> Iterator[str]:
        nonlocal line
        for text in _lines(pieces):
            line += 1
            yield text

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
        yield document_of(f"{blob.name}:{line}", blob.source, row[field], warnings)


def _lines(pieces: Iterator[str]) -> Iterator[str]:
    rest: list[str] = []
    for piece in pieces:
        first, newline, more = piece.partition("\n")
        rest.append(first)
        while newline:
            yield "".join(rest) + "\n"
            first, newline, more = more.partition("\n")
            rest = [first]
    if last := "".join(rest):
        yield last


class _Text(HTMLParser):
    """Collects text; block elements part paragraphs."""

    _SILENT = frozenset({"script", "style", "title", "template", "noscript", "svg"})
    _BLOCKS = frozenset(
        {"p", "div", "section", "article", "ul", "ol", "table", "blockquote", "pre", "hr", "main", "header",
         "footer", "nav", "aside", "figure", "dl", "form", "h1", "h2", "h3", "h4", "h5", "h6"}
    )  # fmt: skip
    _LINES = frozenset({"br", "li", "tr", "dt", "dd"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._silent = 0
        self._verbatim = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        if tag in self._SILENT:
            self._silent += 1
        if tag in self._BLOCKS:
            self._parts.append("\n\n")
        elif tag in self._LINES:
            self._parts.append("\n")
        if tag == "pre":
            self._verbatim += 1
        if len(tag) == 2 and tag[0] == "h" and tag[1] in "123456":
            self._parts.append("#" * int(tag[1]) + " ")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._SILENT:
            self._silent = max(0, self._silent - 1)
        if tag == "pre":
            self._verbatim = max(0, self._verbatim - 1)
        if tag in self._BLOCKS:
            self._parts.append("\n\n")

    def handle_data(self, data: str) -> None:
        if self._silent:
            return
        if self._verbatim:
            self._parts.append(data)
        elif data.strip():
            lead = " " if data[0].isspace() else ""
            tail = " " if data[-1].isspace() else ""
            self._parts.append(f"{lead}{' '.join(data.split())}{tail}")
        elif self._parts:
            self._parts.append(" ")

    def text(self) -> str:
        """The lines, with one blank line between paragraphs."""
        lines = [line.rstrip() for line in "".join(self._parts).split("\n")]
        kept: list[str] = []
        for line in lines:
            text = line if line.startswith("    ") else line.lstrip()
            if text or (kept and kept[-1]):
                kept.append(text)
        return "\n".join(kept).strip("\n") + "\n"
