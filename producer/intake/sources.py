"""Read the documents of a submission's inputs: files, directories, globs, archives, `-` and records.

A document that cannot be read is reported and skipped; the rest are processed.
"""

from __future__ import annotations

import atexit
import glob
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import IO

from docmill.producer.errors import DocumentUnreadable, InputNotFound
from docmill.producer.intake.blobs import file_blobs
from docmill.producer.intake.documents import Document, Skipped, document_of
from docmill.producer.intake.formats import READERS, documents_of
from docmill.producer.intake.records import Record
from docmill.producer.intake.text_encoding import without_surrogates
from docmill.producer.printable_names import printable_name
from docmill.settings.defaults import Producer

_PACKED = (".gz", ".zip")
_BLOCK = 1 << 20  # bytes
_File = tuple[Path | None, str]  # None: standard input; the document's name


def read_documents(inputs: Sequence[str | Record], options: Producer | None = None) -> Iterator[Document | Skipped]:
    """The documents of all inputs, in order, one at a time. Those of directories and globs are sorted.

    An input is a file, a directory, a glob, `-` for standard input, or a record. Raises InputNotFound, before the
    first document, if an input matches nothing.
    """
    found = [match for item in inputs for match in ([item] if isinstance(item, Record) else _matches(item))]
    return _read(found, options or Producer())


def _read(found: Sequence[_File | Record], options: Producer) -> Iterator[Document | Skipped]:
    seen: set[Path] = set()
    for item in found:
        if isinstance(item, Record):
            yield document_of(item.id, "memory", item.text)
            continue
        path, name = item
        place = path or _spooled(sys.stdin.buffer, options.max_document_bytes)
        resolved = place.resolve()
        if resolved in seen:
            continue
        seen.add(resolved)
        try:
            for blob in file_blobs(place, name, options.max_document_bytes, options.max_archive_bytes):
                if path is None:
                    blob = replace(blob, source="-", suffix=".txt")
                elif path.suffix.lower() == ".zip" and blob.suffix not in READERS:
                    yield Skipped(blob.name, f"{blob.suffix or 'a file without suffix'} is not a known text format")
                    continue
                yield from documents_of(replace(blob, source=without_surrogates(blob.source)), options)
        except DocumentUnreadable as error:
            yield Skipped(error.name, error.reason)
        except OSError as error:
            yield Skipped(name, error.strerror or str(error))


def _matches(item: str) -> Iterator[_File]:
    if item == "-":
        yield None, "stdin"
        return
    path = Path(item).expanduser()
    try:
        found = _files_in(path) if path.is_dir() else _named(path)
    except OSError as error:  # a name that is too long, a directory without read permission
        raise InputNotFound(item[:80], error.strerror or str(error)) from error
    if not found:
        if path.is_dir():
            raise InputNotFound(item, "the directory contains no files of a known format; name files or a glob")
        raise InputNotFound(item)
    yield from ((p, printable_name(name)) for p, name in found)


def _files_in(directory: Path) -> list[tuple[Path, str]]:
    found = [path for path in _walk(directory, set()) if _is_known(path)]
    if directory.is_absolute():
        return [(path, f"{directory.name}/{path.relative_to(directory)}") for path in found]
    return [(path, str(path)) for path in found]


def _named(path: Path) -> list[tuple[Path, str]]:
    if path.exists():
        return [(path, _file_name(path))]
    matches = [Path(p) for p in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 - takes absolute patterns
    return [(p, _file_name(p)) for p in matches if p.is_file()]


def _file_name(path: Path) -> str:
    """The name that the user gave, without the directories of an absolute path."""
    return path.name if path.is_absolute() else str(path)


def _walk(directory: Path, visited: set[Path]) -> Iterator[Path]:
    """The files of a directory tree, sorted, without hidden ones. A directory reached again by a link is read once."""
    resolved = directory.resolve()
    if resolved in visited:
        return
    visited.add(resolved)
    for child in sorted(directory.iterdir()):
        if child.name.startswith("."):
            continue
        if child.is_dir():
            yield from _walk(child, visited)
        elif child.is_file():
            yield child


def _is_known(path: Path) -> bool:
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes[-1:] == [".gz"]:
        return suffixes[:1] != [".gz"] and suffixes[0] in READERS
    return bool(suffixes) and (suffixes[-1] in READERS or suffixes[-1] in _PACKED)


@cache
def _spooled(stream: IO[bytes], max_bytes: int) -> Path:
    """A pipe copied to a file, to be read more than once. One byte above the limit shows that there was more."""
    with tempfile.NamedTemporaryFile(prefix="docmill-stdin-", delete=False) as spool:
        atexit.register(Path(spool.name).unlink, missing_ok=True)
        left = max_bytes + 1
        while left > 0 and (block := stream.read(min(left, _BLOCK))):
            spool.write(block)
            left -= len(block)
    return Path(spool.name)
