from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from docmill.producer.model_text import ModelText
from tests.unit.cli.conftest import Docmill

LONG = "".join(f"Paragraph {n} tells of the whale, the sea, and 百 other things.\n\n" for n in range(300))


def test_pieces_show_where_a_word_is_cut(docmill: Docmill, ready: Path) -> None:
    shown = docmill("tokens", "--text", "antidisestablishmentarianism is\n", "--pieces")
    assert shown.code == 0
    first, count, *_ = shown.out.splitlines()
    assert first == '"ant" + "idis" + "establish" + "ment" + "arianism" + "·is" + "\\n"'
    assert count == "7 tokens, 32 characters (smollm2-135m-instruct)"


def test_the_window_is_text_and_template_and_output(docmill: Docmill, ready: Path, model_text: ModelText) -> None:
    record = docmill("tokens", "--text", "a text", "--pieces", "--json").json
    assert record["pieces"] == [
        [i, p] for i, p in zip(model_text.tokenizer.encode("a text"), ["a", " text"], strict=True)
    ]
    assert (record["model"], record["characters"], record["tokens"]) == ("smollm2-135m-instruct", 6, 2)
    assert record["context_window"] == 8192
    assert record["room_for_text"] + record["template_tokens"] + record["output_tokens"] == 8192
    assert "this text is 0% of it" in docmill("tokens", "--text", "a text").out


def test_a_text_is_read_from_standard_input_or_a_file(docmill: Docmill, ready: Path, documents: Path) -> None:
    text = "Understanding is the aim.\n\nThe second paragraph is here.\n"
    results = [
        docmill("tokens", "--json", stdin=text),
        docmill("tokens", "-", "--json", stdin=text),
        docmill("tokens", "docs/a.txt", "--json"),
        docmill("tokens", "--text", text, "--json"),
    ]
    assert len({result.out for result in results}) == 1
    assert results[0].json["tokens"] == 14


def test_more_text_than_the_window_is_said_in_times(docmill: Docmill, ready: Path) -> None:
    shown = docmill("tokens", stdin=LONG * 2)
    assert (shown.code, "times as much" in shown.out) == (0, True)


def test_the_plan_is_one_json_line_a_chunk_and_covers_the_text(
    docmill: Docmill, ready: Path, environment: Path, model_text: ModelText
) -> None:
    (environment / "long.txt").write_text(LONG, encoding="utf-8")
    shown = docmill("chunks", "long.txt", "--chunk-tokens", "100", "--json")
    assert (shown.code, shown.err) == (0, "")
    lines = shown.json_lines
    assert len(lines) > 50
    assert all(list(line) == ["document", "index", "start", "end", "tokens"] for line in lines)
    assert {line["document"] for line in lines} == {"long.txt"}
    assert [line["index"] for line in lines] == list(range(len(lines)))
    assert "".join(LONG[line["start"] : line["end"]] for line in lines) == LONG
    assert [line["tokens"] for line in lines] == [
        model_text.tokenizer.count(LONG[line["start"] : line["end"]]) for line in lines
    ]
    assert max(line["tokens"] for line in lines) <= 100


def test_overlapping_chunks_share_text_and_still_cover_all(docmill: Docmill, ready: Path, environment: Path) -> None:
    (environment / "long.txt").write_text(LONG, encoding="utf-8")
    lines = docmill("chunks", "long.txt", "--chunk-tokens", "100", "--overlap", "20", "--json").json_lines
    assert (lines[0]["start"], lines[-1]["end"]) == (0, len(LONG))
    assert all(after["start"] < before["end"] for before, after in pairwise(lines))


def test_the_table_says_what_it_would_take_and_why_chunks_are_as_they_are(
    docmill: Docmill, ready: Path, environment: Path
) -> None:
    (environment / "long.txt").write_text(LONG, encoding="utf-8")
    shown = docmill("chunks", "long.txt", "--chunk-tokens", "100")
    chunks = len(docmill("chunks", "long.txt", "--chunk-tokens", "100", "--json").json_lines)
    heading, row, _, total, model, cap, time = shown.out.splitlines()
    assert heading.split() == ["document", "chunks", "tokens", "fill", "jobs", "levels"]
    name, shown_chunks, _, fill, jobs, levels = row.split()
    assert (name, shown_chunks) == ("long.txt", str(chunks))
    assert 50 <= int(fill.rstrip("%")) <= 100
    assert int(jobs) > chunks  # merges
    assert int(levels) > 1
    assert total.startswith("1 document, ")
    assert total.endswith(f"about {jobs} jobs")
    assert "window 8,192 tokens, 400 reserved for output" in model
    assert cap == "a chunk holds up to 100 tokens: --chunk-tokens"
    assert time == "time: unknown until the model has run here"
    assert "a chunk holds up to 1,000 tokens: the cap suggested for" in docmill("chunks", "long.txt").out


def test_what_cannot_be_read_is_named_and_the_rest_is_planned(docmill: Docmill, ready: Path, documents: Path) -> None:
    shown = docmill("chunks", "docs", "--json")
    assert shown.code == 1
    assert [line["document"] for line in shown.json_lines] == ["docs/a.txt", "docs/b.md"]
    assert "skipped docs/c.txt: it is not text" in shown.err
    assert "skipped docs/d.txt: it is empty" in shown.err
    table = docmill("chunks", "docs")
    assert (table.code, "2 documents, 25 tokens, about 2 jobs" in table.out) == (1, True)


def test_a_plan_needs_no_database(docmill: Docmill, with_model: Path) -> None:
    shown = docmill("chunks", "-", "--json", stdin="A short text.")
    assert shown.json_lines == [{"document": "stdin", "index": 0, "start": 0, "end": 13, "tokens": 4}]
    assert docmill("chunks", "-", stdin="A short text.").code == 0


@pytest.mark.parametrize("command", [["tokens", "--text", "x"], ["chunks", "-"], ["submit", "-"]])
def test_the_profile_of_the_users_file_is_used(
    docmill: Docmill, ready: Path, environment: Path, command: list[str]
) -> None:
    (environment / "config.yaml").write_text(
        json.dumps({"llm": {"max_tokens": 300, "context_window": 4096}, "big_llm": {"model": "llama-2-13b"}})
    )
    default = docmill(*command, stdin="A short text.")
    assert default.code == 0
    assert "4,096" in default.out or command[0] == "submit"
    other = docmill("--profile", "big_llm", *command, stdin="A short text.")
    assert (other.code, "there is no model 'llama-2-13b-chat' here; download it with" in other.err) == (2, True)
