from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from docmill.producer.intake.documents import Document, Skipped
from docmill.producer.intake.sources import read_documents
from docmill.settings.defaults import Producer

GERMAN = "Falsches Üben von Xylophonmusik quält jeden größeren Zwerg. Heizölrückstoßabdämpfung! " * 20
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。" * 20


def read(path: Path, encoding: str | None = None) -> tuple[str, tuple[str, ...]]:
    """The text of a file and what was remarked on it."""
    (item,) = read_documents([str(path)], Producer().model_copy(update={"encoding": encoding}))
    if isinstance(item, Skipped):
        return f"! {item.reason}", ()
    return "".join(item.open()), item.warnings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_utf8_and_what_a_byte_order_mark_says_is_read_without_a_warning(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(JAPANESE.encode(encoding))
    assert read(path) == (JAPANESE, ())
    assert read(path, "cp1252") == (JAPANESE, ())


@pytest.mark.parametrize("order", ["le", "be"])
def test_utf16_of_either_byte_order_is_read(tmp_path: Path, order: str) -> None:
    bom = codecs.BOM_UTF16_LE if order == "le" else codecs.BOM_UTF16_BE
    path = tmp_path / "a.txt"
    path.write_bytes(bom + GERMAN.encode(f"utf-16-{order}"))
    assert read(path) == (GERMAN, ())


def test_other_encodings_are_guessed_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(GERMAN.encode("cp1252"))
    text, (warning,) = read(path)
    assert text == GERMAN
    assert "guess" in warning
    assert "--encoding" in warning


def test_a_single_byte_far_behind_the_beginning_is_guessed_too(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"plain ASCII words, again and again. " * 20_000 + GERMAN.encode("cp1252"))
    text, (warning,) = read(path)
    assert text.endswith(GERMAN)
    assert "guess" in warning


@pytest.mark.parametrize(
    "encoding", ["cp1252", "latin-1", "shift_jis", "utf-16-le", "utf-16-be", "iso2022_jp", "utf-7"]
)
def test_the_named_encoding_is_used_where_the_text_is_no_utf8(tmp_path: Path, encoding: str) -> None:
    text = GERMAN if encoding in ("cp1252", "latin-1") else JAPANESE
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode(encoding))
    assert read(path, encoding) == (text, ())


def test_utf16_without_a_mark_is_refused_rather_than_read_with_nuls_between(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("plain words".encode("utf-16-le"))
    text, _ = read(path)
    assert text.startswith("! it is not text")
    assert "--encoding utf-16-le" in text


@pytest.mark.parametrize("encoding", ["klingon", "hex", "rot13"])
def test_an_encoding_that_is_none_is_named(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text("text")
    assert read(path, encoding)[0] == f"! there is no encoding {encoding!r}"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"%PDF-1.7\n...", "it is a PDF"),
        (b"PK\x03\x04....", "it is a zip-based file"),
        (b"\xff\xfeb\x00a\xd8", "it is not utf-16"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00", "it is not text"),
        (codecs.BOM_UTF8 + b"a\xff", "it is not utf-8-sig"),
    ],
)
def test_what_is_no_text_is_skipped_with_the_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    assert read(path)[0].startswith(f"! {reason}")


def test_one_undecodable_file_leaves_its_neighbours_alone(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "c.txt").write_text("c")
    items = list(read_documents([str(tmp_path)]))
    assert [type(item) for item in items] == [Document, Skipped, Document]


def test_surrogates_that_an_encoding_lets_through_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"a\\ud800b")
    assert read(path, "unicode_escape") == ("a\ufffdb", ())
