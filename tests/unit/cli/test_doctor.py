"""`docmill doctor` as it is typed, on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from docmill.settings.load import load_settings
from tests.unit.cli.conftest import Docmill


def test_this_machine_is_examined_and_nothing_is_changed(docmill: Docmill, ready: Path) -> None:
    before = sorted(path.name for path in ready.iterdir())
    shown = docmill("doctor")
    assert shown.code == 0
    lines = shown.out.splitlines()
    for section in ("machine", "software", "model", "database", "broker", "services"):
        assert any(line[:4] in ("PASS", "WARN") and section in line for line in lines), section
    assert "this version's" in shown.out
    assert lines[-1].endswith(" 0 failures")
    assert {path.name for path in ready.iterdir()} - set(before) <= {"docmill.db-wal", "docmill.db-shm"}


def test_json_holds_findings_and_facts_and_a_failure_ends_with_1(
    docmill: Docmill, with_model: Path, environment: Path
) -> None:
    (environment / "config.yaml").write_text("broker: {url: 'redis://:secret@127.0.0.1:1/0'}\n")
    shown = docmill("doctor", "--json")
    assert (shown.code, shown.json["status"]) == (1, "fail")
    failed = [finding for finding in shown.json["findings"] if finding["status"] == "fail"]
    assert [(finding["section"], finding["check"]) for finding in failed] == [("broker", "answers")]
    assert "broker.url" in failed[0]["advice"]
    assert shown.json["machine"]["cpu"]["logical"] == os.cpu_count()
    assert set(shown.json["machine"]) == {
        "cpu", "memory", "gpus", "no_gpu", "has_gpu_device", "driver", "disk", "open_files", "is_pretended",
    }  # fmt: skip
    assert shown.json["services"]["model"]["engine"] == "openvino"
    assert "secret" not in shown.out


def test_a_recommendation_shows_tier_models_and_a_config_that_loads(docmill: Docmill, environment: Path) -> None:
    shown = docmill("doctor", "--recommend", "--cores", "8", "--ram", "16", "--vram", "6", "--use-case", "education")
    assert shown.code == 0
    assert "together            Standard" in shown.out
    assert "orca-2-7b" in shown.out
    text = shown.out[shown.out.index("# config.yaml") :]
    path = environment / "recommended.yaml"
    path.write_text(text)
    assert load_settings(path, {}, {}).profile().model == "orca-2-7b"


def test_out_writes_the_config_and_leaves_a_file_that_is_there(docmill: Docmill, environment: Path) -> None:
    arguments = ("doctor", "--recommend", "--cores", "16", "--ram", "64GiB", "--vram", "24", "--out", "mine.yaml")
    assert docmill(*arguments).code == 0
    settings = load_settings(environment / "mine.yaml", {}, {})
    assert settings.profile().optimization.cuda_layers == "all"
    shown = docmill("--config", "mine.yaml", "config", "show", "--json")
    assert shown.code == 0
    again = docmill(*arguments)
    assert (again.code, "already exists and was not changed" in again.err) == (2, True)


def test_a_recommendation_as_json_holds_its_numbers(docmill: Docmill, environment: Path) -> None:
    shown = docmill("doctor", "--recommend", "--cores", "16", "--ram", "64", "--vram", "24", "--vram", "24", "--json")
    found = shown.json
    assert (found["tier"], found["use_case"]) == ("Advanced", "general")
    first = found["first"]
    assert (first["model"], first["gpus"], first["fits"], first["missing_bytes"]) == ("llama-2-70b-chat", 2, True, 0)
    assert first["needed_bytes"] <= first["available_bytes"]
    assert [choice["model"] for choice in found["beside"]]
    assert found["config"].startswith("# config.yaml")


def test_without_a_gpu_is_zero_and_below_basic_the_demo_is_named(docmill: Docmill, environment: Path) -> None:
    shown = docmill("doctor", "--recommend", "--cores", "2", "--ram", "4", "--vram", "0", "--json").json
    assert (shown["tier"], shown["first"]["model"], shown["first"]["place"]) == (
        None,
        "smollm2-135m-instruct",
        "memory",
    )
    assert any("what works: the demo" in remark for remark in shown["remarks"])


@pytest.mark.parametrize(
    "arguments", [("--cores", "4"), ("--out", "x.yaml"), ("--recommend", "--ram", "lots"), ("--use-case", "poetry")]
)
def test_wrong_use_is_told(docmill: Docmill, environment: Path, arguments: tuple[str, ...]) -> None:
    assert docmill("doctor", *arguments).code == 2
