from __future__ import annotations

import gzip
import io
import random
import zipfile
from pathlib import Path

import pytest

from docmill.producer.intake.sources import read_documents
from docmill.producer.result_export import write_directory
from docmill.settings.defaults import Producer
from tests.unit.producer.conftest import report
from tests.unit.producer.test_sources import texts

MIB = 1 << 20


def make_zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_gzip_is_read_by_the_format_inside(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"plain"))
    (tmp_path / "b.html.GZ").write_bytes(gzip.compress(b"<p>page</p>"))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b'{"text": "row"}'))
    (tmp_path / "d.tar.gz").write_bytes(gzip.compress(b"unknown"))
    assert texts(tmp_path) == {
        f"{tmp_path.name}/a.txt": "plain",
        f"{tmp_path.name}/b.html": "page\n",
        f"{tmp_path.name}/c.jsonl:1": "row",
    }


@pytest.mark.parametrize("damage", ["truncated", "no gzip", "flipped"])
def test_a_damaged_gzip_is_skipped_by_name(tmp_path: Path, damage: str) -> None:
    content = bytearray(gzip.compress(bytes(random.Random(1).choices(b"abc \n", k=100_000))))
    if damage == "truncated":
        del content[-100:]
    elif damage == "no gzip":
        content[:2] = b"no"
    else:
        content[len(content) // 2] ^= 0xFF
    (tmp_path / "a.txt.gz").write_bytes(content)
    (tmp_path / "b.txt").write_text("neighbour")
    reason, neighbour = texts(tmp_path).values()
    assert reason.startswith("! it cannot be unpacked")
    assert neighbour == "neighbour"


def test_zip_members_are_documents_of_their_formats(tmp_path: Path) -> None:
    make_zip(
        tmp_path / "a.zip",
        {
            "one.txt": b"one",
            "sub/two.md": b"# two",
            "sub/": b"",
            ".hidden.txt": b"no",
            "__MACOSX/one.txt": b"no",
            "page.html": b"<p>page</p>",
            "rows.csv": b"text\nrow\n",
            "image.png": b"\x89PNG",
            "bare": b"no suffix",
            "empty.txt": b"",
        },
    )
    assert texts(tmp_path / "a.zip") == {
        "a.zip/one.txt": "one",
        "a.zip/sub/two.md": "# two",
        "a.zip/page.html": "page\n",
        "a.zip/rows.csv:2": "row",
        "a.zip/image.png": "! .png is not a known text format",
        "a.zip/bare": "! a file without suffix is not a known text format",
        "a.zip/empty.txt": "! it is empty",
    }


def test_names_that_climb_out_of_a_zip_only_name_documents(tmp_path: Path) -> None:
    names = ["../../evil.txt", "/etc/evil.txt", "a/../../evil.txt", "C:\\evil.txt", "..\\evil.txt"]
    make_zip(tmp_path / "a.zip", {name: name.encode() for name in names})
    found = texts(tmp_path / "a.zip")
    assert sorted(found.values()) == sorted(names)
    out = tmp_path / "deep" / "out"
    written = write_directory([report(name, i) for i, name in enumerate(found)], out)
    assert len(set(written)) == len(names) + 1
    assert {path.resolve().parent for path in written} == {out.resolve()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "deep"]


@pytest.mark.parametrize("kind", ["gzip", "zip"])
def test_a_bomb_is_refused_by_what_it_unpacks_to(tmp_path: Path, kind: str) -> None:
    bomb = bytes(64 * MIB)
    if kind == "gzip":
        (tmp_path / "a.txt.gz").write_bytes(gzip.compress(bomb))
    else:
        make_zip(tmp_path / "a.zip", {"a.txt": bomb})
    (tmp_path / "b.txt").write_text("neighbour")
    refused, neighbour = texts(tmp_path, options=Producer(encoding="latin-1")).values()
    assert refused == "! it unpacks to more than 200 times its size"
    assert neighbour == "neighbour"


@pytest.mark.parametrize("kind", ["gzip", "zip"])
def test_the_size_limit_counts_what_is_unpacked(tmp_path: Path, kind: str) -> None:
    text = bytes(random.Random(2).choices(b"abcdefgh \n", k=3000))
    if kind == "gzip":
        (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text))
    else:
        make_zip(tmp_path / "a.zip", {"a.txt": text})
    (found,) = texts(tmp_path, options=Producer(max_document_bytes=2999)).values()
    assert found == "! it unpacks to more than the limit of 2,999 bytes"
    (found,) = texts(tmp_path, options=Producer(max_document_bytes=3000)).values()
    assert found == text.decode()


def test_a_zip_header_that_lies_about_its_sizes_unpacks_no_more_than_it_says(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a.txt": b"x" * 100_000})
    content = path.read_bytes()
    path.write_bytes(content.replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    (found,) = texts(path).values()
    assert found.startswith("! it cannot be unpacked")


def test_an_encrypted_member_and_an_unknown_method_are_skipped_by_name(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a.txt": b"secret", "b.txt": b"open"}, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    central = content.index(b"PK\x01\x02")
    content[6] |= 1  # the flag of encryption, in both headers
    content[central + 8] |= 1
    path.write_bytes(content)
    found = texts(path)
    assert found["a.zip/a.txt"].startswith("! it cannot be unpacked")
    assert found["a.zip/b.txt"] == "open"
    content[6] &= ~1
    content[central + 8] &= ~1
    content[8] = content[central + 10] = 99
    path.write_bytes(content)
    assert texts(path)["a.zip/a.txt"].startswith("! it cannot be unpacked")


def test_any_damage_to_a_zip_is_reported_and_stops_nothing(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("größe.txt", b"stored")
        archive.writestr("b.txt", b"deflated " * 50, zipfile.ZIP_DEFLATED)
        archive.writestr("c.txt", b"lzma " * 50, zipfile.ZIP_LZMA)
        archive.writestr("d.txt", b"bzip2 " * 50, zipfile.ZIP_BZIP2)
    whole = buffer.getvalue()
    (tmp_path / "z.txt").write_text("neighbour")
    rng = random.Random(3)
    for _ in range(250):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        (tmp_path / "a.zip").write_bytes(content[: rng.randint(1, len(content))] if rng.random() < 0.2 else content)
        assert [item.name for item in read_documents([str(tmp_path)])][-1] == f"{tmp_path.name}/z.txt"
