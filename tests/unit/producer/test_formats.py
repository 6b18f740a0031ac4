from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from docmill.producer.intake.documents import Skipped
from docmill.producer.intake.formats.html import html_to_text
from docmill.producer.intake.sources import read_documents
from docmill.settings.defaults import Producer
from tests.unit.producer.test_sources import texts


def test_each_line_of_jsonl_is_a_document_named_by_its_line(tmp_path: Path) -> None:
    rows = [
        '{"text": "one"}',
        "",
        '{"text": "two\\r\\nlines", "id": 7}',
        "{broken",
        '{"body": "no text"}',
        '["a", "list"]',
        '{"text": 5}',
        '{"text": "  "}',
        "[" * 100_000,
        '{"text": "last"}',
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    found = texts(tmp_path / "rows.jsonl")
    good = {name: text for name, text in found.items() if not text.startswith("!")}
    assert good == {"rows.jsonl:1": "one", "rows.jsonl:3": "two\nlines", "rows.jsonl:10": "last"}
    assert list(found) == [f"rows.jsonl:{line}" for line in (1, 3, 4, 5, 6, 7, 8, 9, 10)]
    assert found["rows.jsonl:5"] == "! it has no field 'text' (it has body); name it with --text-field"
    assert found["rows.jsonl:7"] == "! its text is int, not a string"
    assert found["rows.jsonl:8"] == "! it is empty"


def test_the_text_field_is_chosen_by_name(tmp_path: Path) -> None:
    (tmp_path / "rows.ndjson").write_text('{"text": "no", "body": "yes"}\n')
    (tmp_path / "rows.csv").write_text("text,body\nno,yes\n")
    options = Producer(text_field="body")
    assert texts(tmp_path, options=options) == {
        f"{tmp_path.name}/rows.csv:2": "yes",
        f"{tmp_path.name}/rows.ndjson:1": "yes",
    }


def test_lone_surrogates_in_json_become_replacement_characters(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a\\ud800b \\ud83d\\ude00"}\n')
    assert texts(tmp_path / "rows.jsonl") == {"rows.jsonl:1": "a\ufffdb 😀"}


def test_each_row_of_csv_is_a_document(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(
        b'\xef\xbb\xbfid,text\r\n1,"one, ""quoted""\r\nin two lines"\r\n2,"broken" here\r\n3\r\n4,four\r\n'
    )
    found = texts(tmp_path / "rows.csv")
    assert found["rows.csv:3"] == 'one, "quoted"\nin two lines'
    assert found["rows.csv:4"].startswith("! not CSV")
    assert found["rows.csv:5"] == "! its text is NoneType, not a string"
    assert found["rows.csv:6"] == "four"


def test_a_csv_without_the_column_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,body\n1,x\n")
    assert texts(tmp_path / "rows.csv") == {
        "rows.csv": "! it has no column 'text' (it has id, body); name it with --text-field"
    }


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip), min_size=1, max_size=4))
@settings(max_examples=50)
def test_every_json_string_comes_back_whole(tmp_path_factory: pytest.TempPathFactory, rows: list[str]) -> None:
    path = tmp_path_factory.mktemp("json") / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"text": row}) for row in rows))
    assert list(texts(path).values()) == [row.replace("\r\n", "\n").replace("\r", "\n") for row in rows]


def test_html_becomes_readable_text() -> None:
    page = """<!DOCTYPE html><html><head><title>no</title><style>p {}</style><script>if (a < b) no()</script>
    <body><nav><a href=x>Home</a></nav><h1>The <em>whole</em> title</h1><p>One&nbsp;&amp;
    two<br>three</p><ul><li>a<li>b</ul><pre>  x = 1
    y = 2</pre><template>no</template><h2>Next</h2>tail</body>"""
    assert html_to_text(iter([page])) == (
        "Home\n\n# The whole title\n\nOne & two\nthree\n\na\nb\n\nx = 1\n    y = 2\n\n## Next\n\ntail\n"
    )


@pytest.mark.parametrize(
    "page", ["<head><title>t</title><p>text", "<p>text", "text", "<html><head><body>text", "<div><p>text</div></p></x>"]
)
def test_html_with_tags_left_out_keeps_its_text(page: str) -> None:
    assert html_to_text(iter([page])) == "text\n"


def test_html_is_the_same_however_it_is_cut_into_pieces() -> None:
    page = "<p>a &amp; b</p><script>x</script><!-- c --><p>dé</p>"
    assert {html_to_text(iter([page[:i], page[i:]])) for i in range(len(page))} == {"a & b\n\ndé\n"}


@given(st.text(st.sampled_from("<>!/-[]&;#x'\"= apré\n?")))
@settings(max_examples=150)
def test_broken_html_is_read_or_skipped_by_name(tmp_path_factory: pytest.TempPathFactory, page: str) -> None:
    path = tmp_path_factory.getbasetemp() / "broken.html"
    path.write_text(page)
    (item,) = read_documents([str(path)])
    assert item.name == "broken.html"


def test_html_that_the_parser_gives_up_on_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<p>text</p><![unknown[x]]>")
    (tmp_path / "b.html").write_text("<p>neighbour</p>")
    items = list(read_documents([str(tmp_path)]))
    assert len(items) == 2
    assert not isinstance(items[1], Skipped)
