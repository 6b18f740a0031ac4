from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from docmill.producer.errors import InputNotFound
from docmill.producer.intake.documents import Document, Skipped
from docmill.producer.intake.sources import read_documents
from docmill.settings.defaults import Producer


def texts(*inputs: str | Path, options: Producer | None = None) -> dict[str, str]:
    """By name: the text of every document, or why it is none."""
    found: dict[str, str] = {}
    for item in read_documents([str(i) for i in inputs], options):
        assert item.name not in found
        found[item.name] = "".join(item.open()) if isinstance(item, Document) else f"! {item.reason}"
    return found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Give standard input these bytes."""

    def give(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return give


def test_text_and_markdown_come_as_they_are_with_newlines_as_line_ends(here: Path) -> None:
    (here / "a.txt").write_bytes(b"one\r\ntwo\rthree\n\x00four")
    (here / "b.md").write_text("# Title\n\n```py\nx = 1\n```\n")
    assert texts("a.txt", "b.md") == {
        "a.txt": "one\ntwo\nthree\n\x00four",
        "b.md": "# Title\n\n```py\nx = 1\n```\n",
    }


def test_a_document_is_called_as_its_user_called_it(here: Path) -> None:
    (here / "sub").mkdir()
    (here / "sub" / "a.txt").write_text("a")
    assert list(texts("sub/a.txt")) == ["sub/a.txt"]
    assert list(texts("sub")) == ["sub/a.txt"]
    assert list(texts("sub/*.txt")) == ["sub/a.txt"]
    assert list(texts(here / "sub" / "a.txt")) == ["a.txt"]
    assert list(texts(here / "sub")) == ["sub/a.txt"]


def test_directories_are_read_sorted_without_hidden_and_unknown_files(here: Path) -> None:
    for name in (
        "z.txt",
        "b/c.md",
        "b/.hidden/x.txt",
        ".secret.txt",
        "image.png",
        "a.TXT",
        "b/notes",
        "d.jsonl.gz.txt",
    ):
        path = here / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    assert texts("docs") == {f"docs/{n}": n for n in ("a.TXT", "b/c.md", "d.jsonl.gz.txt", "z.txt")}


def test_what_is_named_itself_is_read_whatever_it_is_called(here: Path) -> None:
    for name in (".hidden", "notes", "letter.tex"):
        (here / name).write_text(name)
    assert texts(".hidden", "notes", "letter.tex") == {n: n for n in (".hidden", "notes", "letter.tex")}


def test_a_file_that_is_named_twice_is_read_once(here: Path) -> None:
    (here / "a.txt").write_text("a")
    (here / "link.txt").symlink_to("a.txt")
    assert list(texts("a.txt", "./a.txt", "*.txt", here, "link.txt")) == ["a.txt"]


def test_directories_that_link_to_each_other_end(here: Path) -> None:
    for name in ("one", "two"):
        (here / "docs" / name).mkdir(parents=True)
        (here / "docs" / name / "text.txt").write_text(name)
        (here / "docs" / name / "up").symlink_to(here / "docs")
        (here / "docs" / name / "across").symlink_to(here / "docs" / ("two" if name == "one" else "one"))
    assert sorted(texts("docs").values()) == ["one", "two"]


@pytest.mark.parametrize("missing", ["nothing.txt", "none/*.txt", "empty", "x" * 5000])
def test_an_input_that_matches_nothing_is_refused_before_anything_is_read(here: Path, missing: str) -> None:
    (here / "empty").mkdir()
    (here / "empty" / "image.png").write_text("")
    (here / "a.txt").write_text("a")
    with pytest.raises(InputNotFound, match=missing[:20].replace("*", r"\*")):
        read_documents(["a.txt", missing])


def test_recursive_globs_are_sorted(here: Path) -> None:
    for name in ("x/b.txt", "x/y/a.txt", "c.txt"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(name)
    assert list(texts("**/*.txt")) == ["c.txt", "x/b.txt", "x/y/a.txt"]


def test_empty_documents_are_reported_and_their_neighbours_read(here: Path) -> None:
    (here / "a.txt").write_text("a")
    (here / "b.txt").write_text(" \n\t\n")
    (here / "c.html").write_text("<p> </p><script>text()</script>")
    (here / "d.txt").touch()
    assert texts(".") == {"a.txt": "a", "b.txt": "! it is empty", "c.html": "! it is empty", "d.txt": "! it is empty"}


def test_standard_input_can_be_read_again_and_counts_once(stdin: Callable[[bytes], None]) -> None:
    stdin("größer".encode())
    documents = list(read_documents(["-", "-"]))
    assert [d.name for d in documents] == ["stdin"]
    assert isinstance(documents[0], Document)
    assert ["".join(documents[0].open()) for _ in range(2)] == ["größer", "größer"]
    assert texts("-") == {"stdin": "größer"}


def test_standard_input_is_bounded(stdin: Callable[[bytes], None]) -> None:
    stdin(b"x" * 5000)
    (refused,) = texts("-", options=Producer(max_document_bytes=1000)).values()
    assert refused.startswith("! ")
    assert "1,000" in refused


def test_files_above_the_limit_are_refused_with_the_numbers(here: Path) -> None:
    (here / "big.txt").write_bytes(b"x" * 1001)
    (here / "fits.txt").write_bytes(b"x" * 1000)
    found = texts(".", options=Producer(max_document_bytes=1000))
    assert found == {"big.txt": "! 1,001 bytes are more than the limit of 1,000", "fits.txt": "x" * 1000}


def test_names_that_are_no_unicode_do_not_stop_anything(here: Path) -> None:
    with open(os.fsencode(here) + b"/caf\xe9.txt", "w") as file:  # noqa: PTH123 - pathlib takes no bytes
        file.write("text")
    (document,) = read_documents(["."])
    assert isinstance(document, Document)
    assert (document.name, "".join(document.open())) == ("caf\ufffd.txt", "text")
    assert document.source.encode()


def test_a_pipe_in_the_file_system_is_refused_with_what_to_do(here: Path) -> None:
    os.mkfifo(here / "pipe.txt")
    assert texts("pipe.txt") == {"pipe.txt": "! it is not a regular file; use - to read a pipe"}


def test_a_file_that_is_gone_when_it_is_read_is_skipped(here: Path) -> None:
    for name in "abc":
        (here / f"{name}.txt").write_text(name)
    documents = read_documents(["."])
    first = next(documents)
    (here / "b.txt").unlink()
    rest = list(documents)
    assert isinstance(first, Document)
    assert [type(d) for d in rest] == [Skipped, Document]
    assert rest[0].name == "b.txt"
