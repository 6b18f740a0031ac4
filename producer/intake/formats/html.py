"""HTML: the readable text of a page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

from docmill.producer.errors import DocumentUnreadable
from docmill.producer.intake.blobs import Blob
from docmill.producer.intake.documents import Document, Skipped, checked
from docmill.producer.intake.text_encoding import decode
from docmill.settings.defaults import Producer

_SILENT = frozenset({"script", "style", "title", "template", "noscript", "svg"})
_BLOCKS = (
    "p", "div", "section", "article", "ul", "ol", "table", "blockquote", "pre", "hr", "main", "header", "footer",
    "nav", "aside", "figure", "dl", "form",
)  # fmt: skip
_HEADINGS = {f"h{level}": f"\n\n{'#' * level} " for level in range(1, 7)}
_BEFORE = dict.fromkeys(_BLOCKS, "\n\n") | dict.fromkeys(("br", "li", "tr", "dt", "dd"), "\n") | _HEADINGS
_AFTER = dict.fromkeys((*_BLOCKS, *_HEADINGS), "\n\n")


def read_html(blob: Blob, options: Producer) -> Iterator[Document | Skipped]:
    """One document. Raises DocumentUnreadable."""
    page = decode(blob, options.encoding)
    try:
        text = html_to_text(page.open())
    except (AssertionError, RecursionError) as error:  # raised by html.parser for some broken pages
        raise DocumentUnreadable(blob.name, f"its HTML cannot be read: {error}") from error
    yield checked(Document(blob.name, blob.source, lambda: iter([text]), page.warnings))


def html_to_text(pieces: Iterator[str]) -> str:
    """The text of a page: blocks as paragraphs, headings marked with `#`, scripts and styles omitted."""
    collector = _TextCollector()
    collector.feed("".join(pieces))  # at once: the parser would scan a long run of text again for every piece
    collector.close()
    return _paragraphs("".join(collector.parts))


class _TextCollector(HTMLParser):
    """Collects the text of a page, with newlines where blocks begin and end."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._silent = 0
        self._verbatim = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self._silent += tag in _SILENT
        self._verbatim += tag == "pre"
        self.parts.append(_BEFORE.get(tag, ""))

    def handle_endtag(self, tag: str) -> None:
        self._silent = max(0, self._silent - (tag in _SILENT))
        self._verbatim = max(0, self._verbatim - (tag == "pre"))
        self.parts.append(_AFTER.get(tag, ""))

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.parts.append(data if self._verbatim else re.sub(r"\s+", " ", data))


def _paragraphs(text: str) -> str:
    """The lines without white space at their ends, paragraphs separated by one blank line."""
    kept: list[str] = []
    for line in text.split("\n"):
        content = line.rstrip() if line.startswith("    ") else line.strip()
        if content or (kept and kept[-1]):
            kept.append(content)
    return "\n".join(kept).strip("\n") + "\n"
