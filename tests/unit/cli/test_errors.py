from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from docmill.cli.main import INTERNAL_ERROR
from docmill.engine_table import ENGINE_NAMES
from docmill.settings.defaults import Worker
from docmill.storage.database import Database
from tests.unit.cli.conftest import Docmill, Outcome


def said(outcome: Outcome) -> str:
    """The one sentence that a command ended with; nothing else was printed."""
    assert outcome.out == ""
    lines = outcome.err.splitlines()
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("docmill: ")
    return lines[0].removeprefix("docmill: ")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ("status 261124-nobody", 2, "there is no batch '261124-nobody'; `docmill status` lists them"),
        ("results latest", 2, "there is no batch 'latest'"),
        ("cancel nobody", 2, "there is no batch 'nobody'"),
        ("retry nobody", 2, "there is no batch 'nobody'"),
        ("submit nowhere.txt", 2, "nowhere.txt: there is no such file or directory, and no file matches it"),
        ("chunks nowhere/*.md", 2, "nowhere/*.md: there is no such file"),
        ("tokens nowhere.txt", 2, "nowhere.txt: there is no such file"),
        ("tokens docs/d.txt", 1, "docs/d.txt: it is empty"),
        ("submit docs/a.txt --model smolm2", 2, "there is no model 'smolm2' here; did you mean smollm2"),
        ("chunks docs/a.txt --model nowhere.gguf", 2, "there is no model 'nowhere.gguf' here"),
        ("models show smolm2", 2, "there is no model 'smolm2' here; did you mean smollm2"),
        ("models pull smolm2", 2, "there is no model 'smolm2' here; did you mean smollm2"),
        ("submit docs/a.txt --task sumarize", 2, "no such task; did you mean summarize?"),
        ("submit docs/a.txt --prompt {txt}", 2, "unknown variable 'txt'; did you mean text?"),
        ("chunks docs/a.txt --max-tokens 9000", 2, "max_tokens 9000 leaves no room for text in a context"),
        ("chunks docs/a.txt --chunk-tokens 5 --overlap 5", 2, "overlap of 5 tokens is not smaller than a chunk of 5"),
        ("--config nowhere.yaml config show", 2, "cannot read the configuration nowhere.yaml: No such file"),
        ("--profile fast_llm status", 2, "unknown profile 'fast_llm'; the profiles are llm"),
        ("results latest --out missing/out.csv", 2, "there is no batch 'latest'"),
        ("worker", 1, "no broker: set broker.url (or DOCMILL_BROKER__URL) to a Redis, or run `docmill up`"),
        ("dispatcher", 1, "no broker: set broker.url (or DOCMILL_BROKER__URL) to a Redis, or run `docmill up`"),
        ("flower", 1, "no broker: set broker.url (or DOCMILL_BROKER__URL) to a Redis, or run `docmill up`"),
        ("worker --model nowhere.gguf", 2, "there is no model 'nowhere.gguf' here"),
        ("--home /proc/nowhere status", 1, "/proc/nowhere: No such file or directory"),
    ],
)  # fmt: skip
def test_what_went_wrong_is_one_sentence_and_an_exit_code(
    docmill: Docmill, ready: Path, documents: Path, arguments: str, code: int, sentence: str
) -> None:
    outcome = docmill(*arguments.split())
    assert outcome.code == code
    assert sentence in said(outcome)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("stauts", "No such command 'stauts'; did you mean status?"),
        ("frobnicate", "No such command 'frobnicate'."),
        ("submit", "Missing argument 'PATH...'"),
        ("submit docs/a.txt --metadata owner", "'owner' is not KEY=VALUE"),
        ("submit docs/a.txt --metadata =me", "'=me' is not KEY=VALUE"),
        ("submit docs/a.txt --deadline soon", "'soon' is not a duration like 30m, 24h or 7d"),
        ("submit docs/a.txt --priority 10", "10 is not in the range 0<=x<=9"),
        ("submit docs/a.txt --encoding utf-9", "there is no encoding 'utf-9'"),
        ("submit docs/a.txt --merge all", "'all' is not one of 'tree', 'refine', 'concat', 'none'"),
        ("run docs/a.txt --engine vllm", "'vllm' is not one of 'auto', "),
        ("tokens docs/a.txt --text also", "give PATH or --text, not both"),
        ("results latest --format xml", "'xml' is not one of 'md', 'jsonl', 'csv'"),
        ("flower --address 0.0.0.0", "an address other than loopback needs --basic-auth USER:PASSWORD"),
    ],
)
def test_wrong_use_is_said_with_the_way_to_the_help(
    docmill: Docmill, ready: Path, documents: Path, arguments: str, message: str
) -> None:
    outcome = docmill(*arguments.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert "--help' for help." in outcome.err
    assert message in outcome.err
    assert "Traceback" not in outcome.err


def test_debug_shows_the_traceback_and_changes_nothing_else(docmill: Docmill, ready: Path) -> None:
    plain, debugged = docmill("status", "nobody"), docmill("--debug", "status", "nobody")
    assert "Traceback" in debugged.err
    assert "docmill.storage.errors.NoSuchBatch" in debugged.err
    assert debugged.err.endswith(plain.err)
    assert (debugged.code, debugged.out) == (plain.code, "")


def test_a_wrong_setting_is_said_wherever_it_is_read(docmill: Docmill, environment: Path) -> None:
    (environment / "config.yaml").write_text("llm:\n  max_tokens: many\n")
    for arguments in (["config", "show"], ["status"], ["submit", "x"], ["db", "current"]):
        outcome = docmill(*arguments)
        assert outcome.code == 2
        assert said(outcome).startswith("config.yaml:2: llm.max_tokens is 'many': it should be a valid integer")


@pytest.mark.parametrize("arguments", ["status", "results x", "cancel x", "submit docs/a.txt", "worker", "dispatcher"])
def test_a_database_without_or_of_an_old_schema_names_the_command_that_helps(
    docmill: Docmill, with_model: Path, migrated: Path, documents: Path, monkeypatch: pytest.MonkeyPatch, arguments: str
) -> None:
    monkeypatch.setenv("DOCMILL_BROKER__URL", "redis://127.0.0.1:1/0")
    outcome = docmill(*arguments.split())
    assert outcome.code == 1
    assert "has no docmill schema yet" in said(outcome)
    assert "run `docmill db upgrade`" in outcome.err


def test_a_password_is_in_no_error(docmill: Docmill, ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCMILL_STORAGE__URL", "postgresql://me:hunter2@127.0.0.1:1/docmill")
    for arguments in (["status"], ["db", "current"], ["--debug", "status"]):
        outcome = docmill(*arguments)
        assert outcome.code == 1
        assert "me:***@127.0.0.1" in outcome.err
        assert "hunter2" not in outcome.err


def test_an_error_that_docmill_does_not_know_has_an_exit_code_of_its_own(
    docmill: Docmill, ready: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("docmill.producer.composition.Reports", None)
    outcome = docmill("status")
    assert outcome.code == INTERNAL_ERROR
    assert said(outcome).startswith("internal error, please report it: TypeError: 'NoneType' object is not callable (")
    assert "`docmill --debug ...`" in said(outcome)


@pytest.mark.parametrize("url", ["mysql://db/docmill", "docmill.db", "sqlite://"])
def test_a_database_of_another_kind_says_which_there_are(
    docmill: Docmill, ready: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("DOCMILL_STORAGE__URL", url)
    outcome = docmill("status")
    assert outcome.code == 1
    assert "sqlite" in said(outcome).lower()


def test_db_current_ends_with_1_until_db_upgrade_has_run(docmill: Docmill, environment: Path, tmp_path: Path) -> None:
    before = docmill("db", "current")
    assert (before.code, "no schema" in before.out, "run `docmill db upgrade`" in before.out) == (1, True, True)
    assert docmill("db", "current", "--json").json["current"] is None
    assert docmill("db", "upgrade").code == 0
    after = docmill("db", "current", "--json")
    assert (after.code, after.json["current"]) == (0, after.json["needed"])
    assert docmill("db", "upgrade").code == 0  # again does nothing

    database = Database(f"sqlite:///{tmp_path / 'home' / 'docmill.db'}")
    with database.write() as session:
        session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    database.close()
    old = docmill("db", "current", "--json")
    assert (old.code, old.json["current"]) == (1, "0000")
    refused = docmill("status")
    assert refused.code == 1
    assert "is at schema 0000" in said(refused)


def test_the_engines_of_the_settings_are_those_there_are() -> None:
    allowed = Worker.model_fields["engine"].annotation
    assert set(allowed.__args__) == {"auto", *ENGINE_NAMES}  # type: ignore[union-attr]


def test_the_program_itself_prints_no_traceback_and_ends_quietly_when_nobody_reads(
    ready: Path, environment: Path
) -> None:
    (environment / "long.txt").write_text("One sentence after the other. " * 3000)
    command = [sys.executable, "-m", "docmill", "chunks", "long.txt", "--chunk-tokens", "8", "--json"]
    root = str(Path(__file__).parents[3])
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={"DOCMILL_HOME": str(ready), "PYTHONPATH": root}
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b'{"document": "long.txt"')
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
