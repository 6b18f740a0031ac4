"""Decode bytes to text: by byte-order mark, as strict UTF-8, by the user's encoding, and by a guess last of all."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from charset_normalizer import from_bytes

from docmill.producer.errors import DocumentUnreadable
from docmill.producer.intake.blobs import Blob

_PIECE = 64 * 1024
_SAMPLE = 256 * 1024
_NO_TEXT = "it is not text (neither UTF-8 nor of a known encoding)"
_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Text in these encodings is often valid UTF-8 by accident: an explicit choice of one is obeyed.
_LOOKS_LIKE_UTF8 = ("utf-16", "utf-32", "utf-7", "iso2022", "hz", "unicode", "raw_unicode", "punycode", "idna")
_BINARY = {
    b"%PDF-": "a PDF",
    b"PK\x03\x04": "a zip-based file (docx, epub, ...)",
    b"\xd0\xcf\x11\xe0": "an Office file",
}


@dataclass(frozen=True, slots=True)
class DecodedText:
    """A file's text. `open` yields it in pieces, line ends as newlines, as often as it is called.

    It raises DocumentUnreadable where the text does not decode. `warnings` say if the encoding is a guess.
    """

    open: Callable[[], Iterator[str]]
    warnings: tuple[str, ...] = ()


def decode(blob: Blob, encoding: str | None) -> DecodedText:
    """Read the file once to find its encoding. Raises DocumentUnreadable for a file that is not text."""
    name, warnings = _find_encoding(blob, encoding)
    return DecodedText(partial(_pieces, blob, name), warnings)


def lines_of(pieces: Iterator[str]) -> Iterator[str]:
    """The lines of a text, each with its newline."""
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


def without_surrogates(text: str) -> str:
    """The text with U+FFFD for each lone surrogate (JSON and file names can hold them, tokenizers cannot)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
    return text


def _pieces(blob: Blob, encoding: str) -> Iterator[str]:
    try:
        with blob.open() as raw, io.TextIOWrapper(raw, encoding=encoding, errors="strict", newline=None) as text:
            while piece := text.read(_PIECE):
                yield without_surrogates(piece)
    except UnicodeError as error:
        raise DocumentUnreadable(blob.name, f"it is not {encoding}: {error}; try --encoding") from error
    except OSError as error:  # the file existed when it was found
        raise DocumentUnreadable(blob.name, error.strerror or str(error)) from error


def _find_encoding(blob: Blob, wanted: str | None) -> tuple[str, tuple[str, ...]]:
    """The encoding's name, and a warning if it is a guess."""
    known = None if wanted is None else _known(blob, wanted)
    with blob.open() as file:
        head = file.read(_SAMPLE)
        for magic, kind in _BINARY.items():
            if head.startswith(magic):
                raise DocumentUnreadable(blob.name, f"it is {kind}; convert it to text first")
        for bom, name in _BOMS:
            if head.startswith(bom):
                return name, ()
        if known is not None and known.startswith(_LOOKS_LIKE_UTF8):
            return known, ()
        if known is None and head.count(0) * 4 > len(head):
            raise DocumentUnreadable(blob.name, f"{_NO_TEXT}; if it is UTF-16, use --encoding utf-16-le")
        decoder = codecs.getincrementaldecoder("utf-8")()
        block = latest = head
        try:
            while block:
                latest = block
                decoder.decode(block)
                block = file.read(_SAMPLE)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            return (known, ()) if known is not None else _guess(blob, head, latest, error)
    return "utf-8", ()


def _known(blob: Blob, wanted: str) -> str:
    try:
        with suppress(UnicodeError):
            b"x".decode(wanted)  # raises LookupError for codecs that are not of text, such as hex
        return codecs.lookup(wanted).name
    except LookupError:
        raise DocumentUnreadable(blob.name, f"there is no encoding {wanted!r}") from None


def _guess(blob: Blob, head: bytes, block: bytes, error: UnicodeDecodeError) -> tuple[str, tuple[str, ...]]:
    sample = head if block is head else head + block  # includes the bytes that are not UTF-8
    if b"\x00" in sample:
        raise DocumentUnreadable(blob.name, _NO_TEXT)
    best = from_bytes(sample).best()
    if best is None:
        raise DocumentUnreadable(blob.name, f"it is not UTF-8 ({error.reason}); set its encoding with --encoding")
    return best.encoding, (f"not UTF-8; read as {best.encoding}, which is a guess; set the encoding with --encoding",)
