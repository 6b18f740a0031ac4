"""Hostile zip files: names cannot leave the archive, and bombs are detected before they are unpacked."""

from __future__ import annotations

import io
import random
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from docmill.producer.intake.documents import Document, Skipped
from docmill.producer.intake.sources import read_documents
from docmill.producer.result_export import write_directory
from docmill.settings.defaults import Producer
from tests.unit.producer.conftest import report


def read(path: Path, options: Producer | None = None) -> dict[str, str]:
    """The text of each document, or `!` and the reason why it was skipped."""
    found: dict[str, str] = {}
    for item in read_documents([str(path)], options):
        match item:
            case Skipped():
                found[item.name] = f"! {item.reason}"
            case Document():
                found[item.name] = "".join(item.open())
    return found


def test_all_members_together_have_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(10):
            archive.writestr(f"{number}.txt", f"{number}" * 1000)
    assert read(path, Producer(max_archive_bytes=9_999)) == {
        "a.zip": "! it unpacks to 10,000 bytes, more than the limit of 9,999"
    }
    assert len(read(path, Producer(max_archive_bytes=10_000))) == 10


TEXT = "".join(random.Random(1).choices("abcdefgh \n", k=5000))


def overlapping(copies: int) -> bytes:
    """A zip whose directory lists one compressed member many times, as small zip bombs do."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.txt", TEXT)
    whole = buffer.getvalue()
    start = whole.index(b"PK\x01\x02")
    end = whole.index(b"PK\x05\x06")
    entry = whole[start:end]
    entries = b"".join(entry.replace(b"0.txt", b"%d.txt" % number) for number in range(copies))
    closing = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, copies, copies, len(entries), start, 0)
    return whole[:start] + entries + closing


def test_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(overlapping(1))
    assert read(path) == {"a.zip/0.txt": TEXT}
    path.write_bytes(overlapping(9))
    (reason,) = set(read(path).values())
    assert "overlap" in reason.lower()


def test_a_symbolic_link_in_a_zip_is_read_as_text_and_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("hunter2")
    link = zipfile.ZipInfo("link.txt")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, str(secret))
    assert read(tmp_path / "a.zip") == {"a.zip/link.txt": str(secret)}
    assert not (tmp_path / "link.txt").exists()


def test_many_members_are_read_from_one_open_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(50):
            archive.writestr(f"{number}.txt", f"text {number}")
    opened: list[object] = []
    original = zipfile.ZipFile._RealGetContents  # type: ignore[attr-defined]

    def counted(archive: zipfile.ZipFile) -> None:
        opened.append(archive)
        original(archive)

    monkeypatch.setattr(zipfile.ZipFile, "_RealGetContents", counted)
    assert len(read(path)) == 50
    assert len(opened) == 1


def test_control_characters_of_names_reach_no_terminal_and_no_log(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("up\x1b[2J\r\nINFO forged.txt", "text")
    (tmp_path / "b\x1b[31m\nc.txt").write_text("text")
    names = list(read(tmp_path))
    assert len(names) == 2
    assert all(name.isprintable() for name in names)
    out = tmp_path / "out"
    written = write_directory([report(name, at) for at, name in enumerate(names)], out)
    assert {path.parent for path in written} == {out}
