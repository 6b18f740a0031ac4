"""Commands in README.md and docs/ exist with the options they are shown with; links between pages lead somewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

import click
import pytest

from docmill.cli.main import cli
from tests.docs.pages import LEARN, ROOT, blocks, examples

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_TYPED = re.compile(r"(?:^|[|&;(] ?|[A-Z]=\S+ )docmill ([a-z-].*)")
_ENDS = {"|", "||", "&&", ";", "&", ">", ">>", "<", ")", "2", "|&"}


def typed(page: Path) -> Iterator[str]:
    """What follows `docmill` in the page's blocks, and in code within its sentences."""
    for block in blocks(page):
        if block.language not in ("", "console", "bash", "sh"):
            continue
        shown = [example.command for example in examples(block)]
        for line in shown or block.body.splitlines():
            yield from _TYPED.findall(line.replace("\\\n", " "))
    prose = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for code in re.findall(r"`([^`\n]+)`", prose):
        yield from _TYPED.findall(code)


def words(command: str) -> list[str]:
    """The arguments, up to what the shell takes for itself or a string that goes on in the next line."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.wordchars += "$[]{}%:,@+^"
    found: list[str] = []
    with suppress(ValueError):  # the string's end is not in this line
        found.extend(takewhile(lambda word: word not in _ENDS, lexer))
    return found


def complaint(arguments: list[str]) -> str | None:
    """What is wrong with these arguments of docmill, None if nothing is."""
    command: click.Command = cli
    rest = iter(arguments)
    for word in rest:
        if word.startswith("-") and len(word) > 1:
            name, _, value = word.partition("=")
            options = {opt: option for option in command.params for opt in (*option.opts, *option.secondary_opts)}
            if name in ("-h", "--help", "--version"):
                continue
            if name not in options:
                return f"{command.name} has no option {name}"
            option = options[name]
            if isinstance(option, click.Option) and not option.is_flag:
                value = value or next(rest, "")
                if isinstance(option.type, click.Choice) and value.islower() and value not in option.type.choices:
                    return f"{name} takes {', '.join(map(str, option.type.choices))}, not {value}"
        elif isinstance(command, click.Group):
            child = command.get_command(click.Context(command), word)
            if child is None:
                return None if word.isupper() else f"there is no command {word}"
            command = child
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_the_page_exists_with_its_options(page: Path) -> None:
    wrong = {command: what for command in typed(page) if (what := complaint(words(command)))}
    assert not wrong


def test_the_check_sees_what_is_wrong() -> None:
    assert complaint(words("run novel.txt --task key-points | head")) is None
    assert complaint(words("models show smollm2")) is None
    assert complaint(words("--profile other_llm run a --slots=4")) is None
    assert complaint(words("mill novel.txt")) == "there is no command mill"
    assert complaint(words("run novel.txt --tusk x")) == "run has no option --tusk"
    assert complaint(words("run a --merge wood")) == "--merge takes tree, refine, concat, none, not wood"


def test_the_learners_links_lead_to_files_and_headings() -> None:
    for page in LEARN.glob("*.md"):
        for target, heading in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", page.read_text("utf-8")):
            linked = (page.parent / target).resolve() if target else page
            assert linked.exists(), f"{page.name}: {target}"
            if heading:
                titles = re.findall(r"^#+ (.*)$", linked.read_text("utf-8"), re.MULTILINE)
                slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
                assert heading in slugs, f"{page.name}: {target}#{heading}"


def test_every_chapter_is_in_the_index() -> None:
    index = (LEARN / "README.md").read_text("utf-8")
    assert [
        page.name for page in LEARN.glob("*.md") if page.name != "README.md" and f"]({page.name})" not in index
    ] == []
