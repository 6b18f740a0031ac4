from __future__ import annotations

import json
from pathlib import Path

from docmill.settings.load import load_settings
from tests.unit.cli.conftest import Docmill

SIMULATED = ("--model", "simulated", "--engine", "simulated", "--quick")


def test_tune_shows_every_run_and_writes_what_was_best(docmill: Docmill, with_model: Path, environment: Path) -> None:
    ran = docmill("tune", *SIMULATED, "--out", "tuned.yaml")
    assert ran.code == 0
    assert "text tokens/s" in ran.out
    assert "<- best" in ran.out
    profile = load_settings(environment / "tuned.yaml", environment={}).profile()
    assert profile.model == "simulated"
    assert profile.chunk_tokens in (500, 1000)


def test_tune_keeps_a_file_that_is_there(docmill: Docmill, with_model: Path, environment: Path) -> None:
    (environment / "tuned.yaml").write_text("llm: {}\n")
    ran = docmill("tune", *SIMULATED, "--out", "tuned.yaml")
    assert ran.code == 2
    assert (environment / "tuned.yaml").read_text() == "llm: {}\n"


def test_tune_measures_with_a_text_of_ones_own_and_prints_json(
    docmill: Docmill, with_model: Path, environment: Path
) -> None:
    (environment / "own.txt").write_text("".join(f"Sentence {n} of a text of one's own. " for n in range(500)))
    ran = docmill("tune", "own.txt", *SIMULATED, "--json")
    assert ran.code == 0
    record = json.loads(ran.out)
    assert record["engine"] == "simulated"
    assert record["best"] in record["runs"]
