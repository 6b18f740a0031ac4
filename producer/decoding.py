"""Bytes to text: byte-order mark, strict UTF-8, the user's encoding, and a guess last of all."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from dataclasses import dataclass

from charset_normalizer import from_bytes

from producer.blobs import Blob
from producer.errors import DocumentUnreadable

_PIECE = 64 * 1024
_SAMPLE = 256 * 1024
_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BINARY = {
    b"%PDF-": "a PDF",
    b"PK\x03\x04": "a zip-based file (docx, epub, ...)",
    b"\xd0\xcf\x11\xe0": "an Office file",
}


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a blob is decoded; `warning` says when that is a guess."""

    name: str
    warning: str | None = None


def find_encoding(blob: Blob, wanted: str | None) -> Encoding:
    """Read the blob once to see how it decodes. Raises DocumentUnreadable for what is no text."""
    with blob.open() as file:
        head = file.read(_SAMPLE)
        for magic, kind in _BINARY.items():
            if head.startswith(magic):
                raise DocumentUnreadable(blob.name, f"it is {kind}; convert it to text first")
        for bom, name in _BOMS:
            if head.startswith(bom):
                return Encoding(name)
        if wanted is not None:
            return Encoding(_known(blob, wanted))
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            block = head
            while block:
                decoder.decode(block)
                block = file.read(_SAMPLE)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            return _guess(blob, head, error)
    return Encoding("utf-8")


def decoded(blob: Blob, encoding: Encoding) -> Iterator[str]:
    """The text in pieces, line ends as newline. Raises DocumentUnreadable where it does not decode."""
    with blob.open() as raw, io.TextIOWrapper(raw, encoding=encoding.name, errors="strict", newline=None) as text:
        try:
            while piece := text.read(_PIECE):
                yield piece
        except UnicodeError as error:
            raise DocumentUnreadable(blob.name, f"it is not {encoding.name}: {error}; try --encoding") from error


def _known(blob: Blob, wanted: str) -> str:
    try:
        return codecs.lookup(wanted).name
    except LookupError:
        raise DocumentUnreadable(blob.name, f"there is no encoding {wanted!r}") from None


def _guess(blob: Blob, head: bytes, error: UnicodeDecodeError) -> Encoding:
    if b"\x00" in head:
        raise DocumentUnreadable(blob.name, "it is not text (neither UTF-8 nor of a known encoding)")
    best = from_bytes(head).best()
    if best is None:
        raise DocumentUnreadable(blob.name, f"it is not UTF-8 ({error.reason}); name its encoding with --encoding")
    return Encoding(best.encoding, f"not UTF-8; read as {best.encoding}, which is a guess: --encoding names it")
