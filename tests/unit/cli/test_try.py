"""`docmill try` as it is typed, on the simulated engine in a process of its own; and presets elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rich.console import Console

from docmill.cli.commands.try_ import repeated
from docmill.cli.display.spinner import waiting
from docmill.producer.composition import Backend
from docmill.settings.errors import SettingsError
from docmill.settings.load import load_settings
from tests.unit.cli.conftest import Docmill

SIMULATED = ("--model", "simulated", "--max-tokens", "5")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("p --t 1 2 3", "p --t 1 --t 2 --t 3"),
        ("--t 1 2 p", "--t 1 --t 2 p"),
        ("--t 1,2 3 --seed 4 5", "--t 1,2 --t 3 --seed 4 5"),
        ("--t 1 --t 2 3", "--t 1 --t 2 --t 3"),
        ("--t 1 -- 2 --t 3 4", "--t 1 -- 2 --t 3 4"),
        ("--t x 1", "--t x 1"),
        ("p --t", "p --t"),
        ("7 --t 1", "7 --t 1"),
        ("--t=1 2", "--t=1 2"),
    ],
)
def test_an_option_takes_the_numbers_that_follow_it(typed: str, meant: str) -> None:
    assert repeated(typed.split(), "--t") == meant.split()


@pytest.mark.parametrize(
    "typed",
    [
        ("--temperature", "0.2", "0.7", "1.0"),
        ("--temperature", "0.2,0.7,1.0"),
        ("--temperature", "0.2", "--temperature", "0.7", "--temperature", "1.0"),
        ("--preset", "focused", "--preset", "balanced", "--preset", "creative"),
        (),
    ],
    ids=lambda typed: " ".join(typed) or "nothing said",
)
def test_temperatures_are_taken_in_every_form(docmill: Docmill, with_model: Path, typed: tuple[str, ...]) -> None:
    shown = docmill("try", "Why is the sky blue?", *typed, *SIMULATED, "--json")
    assert shown.code == 0
    answers = shown.json["answers"]
    assert [(answer["temperature"], answer["preset"]) for answer in answers] == [
        (0.2, "focused"), (0.7, "balanced"), (1.0, "creative"),
    ]  # fmt: skip
    assert all(1 <= answer["completion_tokens"] <= 5 for answer in answers)
    assert (shown.json["engine"], shown.json["seed"]) == ("simulated", None)


def test_answers_stand_side_by_side_with_tokens_and_time(docmill: Docmill, with_model: Path) -> None:
    shown = docmill("try", "-", "--temperature", "0", "0.7", *SIMULATED, stdin="From the pipe")
    assert shown.code == 0
    heading = next(line for line in shown.out.splitlines() if "temperature 0" in line)
    assert "temperature 0.7 (balanced)" in heading
    costs = re.findall(r"[1-5] tokens in \d+\.\d s", shown.out)
    assert len(costs) == 2
    assert "cut at --max-tokens" in shown.out or "complete" in shown.out
    assert shown.err.splitlines() == ["loading simulated on simulated", "writing 2 answers"]


def test_on_a_narrow_terminal_answers_stand_below_each_other(
    docmill: Docmill, with_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("docmill.cli.commands.try_.stdout_console", lambda: Console(width=60))
    shown = docmill("try", "p", "--temperature", "0", "0.7", "1", *SIMULATED)
    headings = [line for line in shown.out.splitlines() if "temperature" in line]
    assert len(headings) == 3


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("p", "--temperature", "9"), "not in the range"),
        (("p", "--temperature", "0.2,x"), "is neither a number"),
        (("p", "--preset", "wild"), "focused"),
        (("  ",), "the prompt is empty"),
        ((), "Missing argument"),
    ],
)
def test_wrong_use_is_told(docmill: Docmill, with_model: Path, typed: tuple[str, ...], said: str) -> None:
    shown = docmill("try", *typed, "--model", "simulated")
    assert (shown.code, said in shown.err) == (2, True)


def test_a_prompt_too_long_for_the_window_is_refused_with_the_numbers(docmill: Docmill, with_model: Path) -> None:
    shown = docmill("try", "word " * 9000, *SIMULATED)
    assert (shown.code, "do not fit the context window of 8192" in shown.err) == (1, True)


def test_a_submission_takes_a_preset_for_its_temperature(docmill: Docmill, ready: Path, documents: Path) -> None:
    assert docmill("submit", "docs/a.txt", "--preset", "creative", "--quiet").code == 0
    backend = Backend(load_settings(None, {"home": str(ready)}, {}))
    with backend.database.read() as session:
        (plan,) = session.connection().exec_driver_sql("SELECT plan FROM batches").one()
    assert '"temperature": 1.0' in plan
    both = docmill("submit", "docs/a.txt", "--preset", "focused", "--temperature", "0.5")
    assert (both.code, "--preset is a named temperature" in both.err) == (2, True)


def test_a_profile_may_name_its_temperature(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("llm: {temperature: balanced}\nhot_llm: {temperature: 1.5}\n")
    settings = load_settings(path, {}, {})
    assert (settings.profile().temperature, settings.profile("hot_llm").temperature) == (0.7, 1.5)
    path.write_text("llm: {temperature: warm}\n")
    with pytest.raises(SettingsError, match="temperature"):
        load_settings(path, {}, {})


def test_a_spinner_is_one_plain_line_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with waiting(Console(), "loading m on openvino"):
        pass
    assert capsys.readouterr().out == "loading m on openvino\n"
