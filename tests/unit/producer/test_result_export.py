from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from docmill.producer.result_export import as_markdown, write_csv, write_directory, write_jsonl, write_markdown
from docmill.storage.reads.documents import DocumentReport, WindowResult
from docmill.storage.states import DocumentState
from tests.unit.producer.conftest import report

WINDOWS = (WindowResult(0, 0, 60, "One, first."), WindowResult(1, 60, 100, "Two."))


def test_jsonl_has_one_object_a_line_in_order() -> None:
    out = io.StringIO()
    failed = report("b.txt", 1, state=DocumentState.FAILED, summary=None, error="it broke", seconds=None)
    alone = report("c.txt", 2, summary=None, windows=WINDOWS)
    write_jsonl([report("a.txt", summary="Größe\nin two lines"), failed, alone], out)
    first, second, third = (json.loads(line) for line in out.getvalue().splitlines())
    assert (first["document"], first["summary"], first["state"]) == ("a.txt", "Größe\nin two lines", "done")
    assert (first["seconds"], first["prompt_tokens"], first["chunks"]) == (1.235, 50, 2)
    assert (second["state"], second["error"], second["summary"]) == ("failed", "it broke", None)
    assert third["windows"] == [
        {"index": 0, "start": 0, "end": 60, "text": "One, first."},
        {"index": 1, "start": 60, "end": 100, "text": "Two."},
    ]
    assert "windows" not in first
    assert "Größe" in out.getvalue()


def test_csv_quotes_what_it_must_and_joins_windows() -> None:
    out = io.StringIO()
    write_csv(
        [report('a "b", c.txt', summary='Says "so",\nand more'), report("c", 1, summary=None, windows=WINDOWS)], out
    )
    rows = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert [row["document"] for row in rows] == ['a "b", c.txt', "c"]
    assert [row["summary"] for row in rows] == ['Says "so",\nand more', "One, first.\n\nTwo."]
    assert rows[0]["completion_tokens"] == "10"


def test_markdown_shows_summary_error_windows_and_remarks() -> None:
    text = as_markdown(
        report("a.txt", summary=" S. ", state=DocumentState.FAILED, error="it broke", windows=WINDOWS, remarks=("cut",))
    )
    assert text.splitlines()[0] == "# a.txt"
    for part in ("S.", "**failed**: it broke", "## Characters 60 to 100", "Two.", "> cut"):
        assert part in text
    out = io.StringIO()
    write_markdown([report("a"), report("b", 1)], out)
    assert out.getvalue().index("# a") < out.getvalue().index("# b")


def test_a_directory_holds_one_file_a_document_and_the_results(tmp_path: Path) -> None:
    reports = [report("sub/a.txt"), report("b.txt", 1, summary=None)]
    written = write_directory(reports, tmp_path / "new" / "out")
    assert [path.name for path in written] == ["sub__a.txt.md", "b.txt.md", "results.jsonl"]
    assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir()) == sorted(p.name for p in written)
    assert "Summary of sub/a.txt." in written[0].read_text("utf-8")
    assert [json.loads(line)["document"] for line in written[-1].read_text("utf-8").splitlines()] == [
        "sub/a.txt",
        "b.txt",
    ]


_NAMES = st.one_of(
    st.sampled_from(
        ["a", "A", "a-1", "a-2", "a/b", "a__b", "..", ".", "", "results", "日本" * 100, "é" * 300, "a" * 300]
    ),
    st.text(st.characters(codec="utf-8"), max_size=8),
)


@given(st.lists(_NAMES, min_size=1, max_size=12))
@example(["a", "a-2", "a"])
@example(["a/b", "a__B", "a\\b"])
@settings(max_examples=40)
def test_every_document_gets_a_file_of_its_own_whatever_it_is_called(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    out = tmp_path_factory.mktemp("names")
    *files, _ = write_directory([report(name, i, summary=f"Summary {i}.") for i, name in enumerate(names)], out)
    assert len({path.name.lower() for path in files}) == len(names)
    assert len(list(out.iterdir())) == len(names) + 1
    for position, path in enumerate(files):
        assert path.parent == out
        assert f"\nSummary {position}.\n" in path.read_text("utf-8")


def test_files_are_replaced_in_one_step_not_written_over(tmp_path: Path) -> None:
    out, kept = tmp_path / "out", tmp_path / "kept"
    for name in (path.name for path in write_directory([report("a.txt", summary="Old.")], out)):
        kept.mkdir(exist_ok=True)
        (kept / name).hardlink_to(out / name)
    write_directory([report("a.txt", summary="New.")], out)
    for name in ("a.txt.md", "results.jsonl"):
        assert "New." in (out / name).read_text()
        assert "Old." in (kept / name).read_text()


def test_what_stood_there_stays_whole_until_it_is_replaced(tmp_path: Path) -> None:
    write_directory([report("a.txt", summary="Old."), report("b.txt", 1, summary="Old.")], tmp_path)
    before = (tmp_path / "results.jsonl").read_bytes()

    def reports() -> Iterator[DocumentReport]:
        yield report("a.txt", summary="New.")
        raise ConnectionError

    with pytest.raises(ConnectionError):
        write_directory(reports(), tmp_path)
    assert (tmp_path / "results.jsonl").read_bytes() == before
    assert "New." in (tmp_path / "a.txt.md").read_text()
    assert "Old." in (tmp_path / "b.txt.md").read_text()
