"""From what the user names (files, directories, globs, archives, `-`) to documents.

A document that cannot be read is reported by name and skipped; the rest goes on.
"""

from __future__ import annotations

import glob
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from producer.blobs import Blob, file_blobs
from producer.errors import DocumentUnreadable, InputNotFound
from producer.formats import SUFFIXES, Document, Skipped, documents_of

__all__ = ["Document", "IntakeOptions", "Skipped", "read_documents"]

_PACKED = (".gz", ".zip")


@dataclass(frozen=True, slots=True)
class IntakeOptions:
    """`encoding` of what is not UTF-8; `text_field` of JSONL and CSV; `max_document_bytes` of one text, unpacked."""

    encoding: str | None = None
    text_field: str = "text"
    max_document_bytes: int = 1 << 30


def read_documents(inputs: Sequence[str], options: IntakeOptions | None = None) -> Iterator[Document | Skipped]:
    """The documents of all inputs, in order; directories and globs sorted. Reads one at a time.

    Raises InputNotFound, before the first document, when an input matches nothing.
    """
    chosen = options or IntakeOptions()
    files = [(path, name) for item in inputs for path, name in _matches(item)]
    return _read(files, chosen)


def _read(files: Sequence[tuple[Path | None, str]], options: IntakeOptions) -> Iterator[Document | Skipped]:
    seen: set[Path] = set()
    for path, name in files:
        if path is None:
            yield from _standard_input(options)
            continue
        resolved = path.resolve()
        if resolved in seen:
            continue
        seen.add(resolved)
        try:
            for blob in file_blobs(path, name, options.max_document_bytes):
                if path.suffix.lower() == ".zip" and blob.suffix not in SUFFIXES:
                    yield Skipped(blob.name, f"{blob.suffix or 'a file without suffix'} is not a known text format")
                    continue
                yield from _documents(blob, options)
        except DocumentUnreadable as error:
            yield Skipped(error.name, error.reason)
        except OSError as error:
            yield Skipped(name, error.strerror or str(error))


def _documents(blob: Blob, options: IntakeOptions) -> Iterator[Document | Skipped]:
    return documents_of(
        blob,
        encoding=options.encoding,
        text_field=options.text_field,
        max_bytes=options.max_document_bytes,
    )


def _matches(item: str) -> Iterator[tuple[Path | None, str]]:
    if item == "-":
        yield None, "stdin"
        return
    path = Path(item).expanduser()
    if path.is_dir():
        found = [p for p in _walk(path) if _is_known(p)]
        if not found:
            raise InputNotFound(f"{item} (a directory without text files)")
        yield from ((p, str(p) if not path.is_absolute() else f"{path.name}/{p.relative_to(path)}") for p in found)
    elif path.exists():
        yield path, _file_name(path)
    else:
        matches = [Path(p) for p in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 - takes absolute patterns
        files = [p for p in matches if p.is_file()]
        if not files:
            raise InputNotFound(item)
        yield from ((p, _file_name(p)) for p in files)


def _file_name(path: Path) -> str:
    """A document is called as its user called it, without the directories of an absolute path."""
    return path.name if path.is_absolute() else str(path)


def _walk(directory: Path) -> Iterator[Path]:
    for child in sorted(directory.iterdir()):
        if child.name.startswith("."):
            continue
        if child.is_dir():
            yield from _walk(child)
        elif child.is_file():
            yield child


def _is_known(path: Path) -> bool:
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes[-1:] == [".gz"]:
        return suffixes[:1] != [".gz"] and suffixes[0] in SUFFIXES
    return bool(suffixes) and (suffixes[-1] in SUFFIXES or suffixes[-1] in _PACKED)


def _standard_input(options: IntakeOptions) -> Iterator[Document | Skipped]:
    with tempfile.NamedTemporaryFile(prefix="docmill-stdin-", delete=False) as spool:
        shutil.copyfileobj(sys.stdin.buffer, spool)
    path = Path(spool.name)
    try:
        yield from _documents(Blob("stdin", "-", ".txt", lambda: path.open("rb")), options)
    finally:
        path.unlink(missing_ok=True)
