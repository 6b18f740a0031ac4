"""The bytes of a document: a file, the content of a gzip, a member of a zip. They can be read more than once.

Limits apply to the bytes actually read, not to what a header claims: a decompression bomb is rejected while it unpacks.
"""

from __future__ import annotations

import gzip
import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from docmill.producer.errors import DocumentUnreadable
from docmill.producer.printable_names import printable_name

_MAX_RATIO = 200  # unpacked to packed size; text compresses to about a fifth
_RATIO_FROM_BYTES = 8 << 20  # a high ratio is harmless below this
_MAX_MEMBERS = 100_000
_BROKEN = (  # raised by the standard library for archives that are damaged, encrypted or of an unknown version
    zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, struct.error, zlib.error, lzma.LZMAError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Blob:
    """A file's bytes. `suffix`, in lower case, tells the format; `open` reads from the beginning."""

    name: str
    source: str
    suffix: str
    open: Callable[[], IO[bytes]]


def file_blobs(path: Path, name: str, max_bytes: int, max_archive_bytes: int) -> Iterator[Blob]:
    """The file itself, the content of a `.gz`, or the members of a `.zip`. Raises DocumentUnreadable.

    `max_bytes` limits one blob and `max_archive_bytes` all members of an archive, both unpacked.
    """
    if not path.is_file():
        raise DocumentUnreadable(name, "it is not a regular file; use - to read a pipe")
    suffix = path.suffix.lower()
    if suffix == ".zip":
        yield from _zip_blobs(path, name, max_bytes, max_archive_bytes)
        return
    packed = path.stat().st_size
    if suffix == ".gz":
        inner = PurePosixPath(name).with_suffix("")

        def unpack() -> IO[bytes]:
            return _limited(cast(IO[bytes], gzip.open(path, "rb")), name, max_bytes, packed)

        yield Blob(str(inner), str(path), inner.suffix.lower(), unpack)
        return
    if packed > max_bytes:
        raise DocumentUnreadable(name, f"{packed:,} bytes are more than the limit of {max_bytes:,}")
    yield Blob(name, str(path), suffix, lambda: path.open("rb"))


def _zip_blobs(path: Path, name: str, max_bytes: int, max_archive_bytes: int) -> Iterator[Blob]:
    try:
        archive = zipfile.ZipFile(path)  # stays open as long as one of its blobs is referenced
    except _BROKEN as error:
        raise DocumentUnreadable(name, f"it is not a complete zip archive: {error}") from error
    members = [info for info in archive.infolist() if not info.is_dir()]
    _check_archive(name, members, path.stat().st_size, max_archive_bytes)
    for info in members:
        if _is_hidden(info.filename):
            continue
        inner = f"{name}/{printable_name(info.filename)}"
        yield Blob(
            inner,
            str(path),
            PurePosixPath(info.filename).suffix.lower(),
            partial(_open_member, archive, inner, info, max_bytes),
        )


def _check_archive(name: str, members: Sequence[zipfile.ZipInfo], packed_bytes: int, max_bytes: int) -> None:
    """Check the archive's directory; no member is read beyond the size given there. Raises DocumentUnreadable."""
    if len(members) > _MAX_MEMBERS:
        raise DocumentUnreadable(name, f"{len(members):,} members are more than the limit of {_MAX_MEMBERS:,}")
    if sum(info.compress_size for info in members) > packed_bytes:
        raise DocumentUnreadable(name, "its members overlap, as in a decompression bomb")
    unpacked = sum(info.file_size for info in members)
    if unpacked > max_bytes:
        raise DocumentUnreadable(name, f"it unpacks to {unpacked:,} bytes, more than the limit of {max_bytes:,}")


def _open_member(archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo, max_bytes: int) -> IO[bytes]:
    try:
        return _limited(archive.open(info), name, max_bytes, info.compress_size)
    except _BROKEN as error:
        raise DocumentUnreadable(name, f"it cannot be unpacked: {error}") from error


def _is_hidden(member: str) -> bool:
    parts = PurePosixPath(member.replace("\\", "/")).parts
    return any(part.startswith(".") or part == "__MACOSX" for part in parts if part not in ("..", "."))


def _limited(inner: IO[bytes], name: str, max_bytes: int, packed_bytes: int) -> IO[bytes]:
    return io.BufferedReader(cast(Any, _Limited(inner, name, max_bytes, packed_bytes)))


class _Limited(io.RawIOBase):
    """Counts the unpacked bytes and stops at the limits."""

    def __init__(self, inner: IO[bytes], name: str, max_bytes: int, packed_bytes: int) -> None:
        self._inner = inner
        self._name = name
        self._max_bytes = max_bytes
        self._packed_bytes = max(1, packed_bytes)
        self._read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        try:
            data = self._inner.read(len(buffer))
        except _BROKEN as error:
            raise DocumentUnreadable(self._name, f"it cannot be unpacked: {error}") from error
        self._read += len(data)
        if self._read > self._max_bytes:
            raise DocumentUnreadable(self._name, f"it unpacks to more than the limit of {self._max_bytes:,} bytes")
        if self._read > _RATIO_FROM_BYTES and self._read > _MAX_RATIO * self._packed_bytes:
            raise DocumentUnreadable(self._name, f"it unpacks to more than {_MAX_RATIO} times its size")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._inner.close()
        super().close()
