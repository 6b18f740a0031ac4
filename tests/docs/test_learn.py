"""The commands in docs/learn are run page by page, and their output is compared with the pages."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.docs.pages import LEARN, Block, blocks, differs, examples
from tests.docs.terminal import run_command

PAGES = sorted(LEARN.glob("*.md"))
CONSOLES = [block for page in PAGES for block in blocks(page) if block.language == "console"]
NOT_RUN = [block for block in CONSOLES if "not run by the tests" in block.directives]
RUN = [page for page in PAGES if any(block.page == page for block in CONSOLES if block not in NOT_RUN)]


@pytest.fixture
def environment(own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a reader in docs/learn with the demo model and no other settings."""
    shutil.copytree(LEARN, tmp_path / "learn")
    for name in [name for name in os.environ if name.startswith("DOCMILL_")]:
        monkeypatch.delenv(name)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, "DOCMILL_HOME": str(own_home), "COLUMNS": "110", "PWD": str(tmp_path / "learn")}


@pytest.mark.model
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_the_page_shows_what_its_commands_print(page: Path, environment: dict[str, str]) -> None:
    wrong = [
        text for block in CONSOLES if block.page == page and block not in NOT_RUN for text in run(block, environment)
    ]
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.parametrize("block", NOT_RUN, ids=lambda block: block.place)
def test_a_block_that_is_not_run_gives_a_reason(block: Block) -> None:
    pytest.skip(block.directives["not run by the tests"])


def run(block: Block, environment: dict[str, str]) -> list[str]:
    """Run the commands of the block. Returns a description of everything that differs from the page."""
    wrong = []
    for example in examples(block):
        code, shown = run_command(example.command, environment)
        heading = f"{block.place}: $ {example.command}"
        if code != block.exit_code:
            wrong.append(f"{heading}\nexit code {code}, not {block.exit_code}\n{shown}")
        elif difference := differs(block, example.shown, shown):
            wrong.append(f"{heading}\n{difference}")
    return wrong
