"""The commands in README.md, CONTRIBUTING.md and docs/ exist with the options shown; anchors in docs/learn exist."""

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

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_TYPED = re.compile(r"(?:^|[|&;(] ?|[A-Z]=\S+ )docmill ([a-z-].*)")
_ENDS = {"|", "||", "&&", ";", "&", ">", ">>", "<", ")", "2", "|&"}


def commands(page: Path) -> Iterator[str]:
    """The arguments of `docmill` in the page's code blocks and inline code."""
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
    """The arguments up to a shell operator or a string that continues on the next line."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.wordchars += "$[]{}%:,@+^"
    found: list[str] = []
    with suppress(ValueError):  # the end of the string is on another line
        found.extend(takewhile(lambda word: word not in _ENDS, lexer))
    return found


def problem(arguments: list[str]) -> str | None:
    """What is wrong with these arguments of docmill, or None."""
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
    wrong = {command: what for command in commands(page) if (what := problem(words(command)))}
    assert not wrong


def test_wrong_commands_and_options_are_found() -> None:
    assert problem(words("run novel.txt --task key-points | head")) is None
    assert problem(words("models show smollm2")) is None
    assert problem(words("--profile other_llm run a --slots=4")) is None
    assert problem(words("mill novel.txt")) == "there is no command mill"
    assert problem(words("run novel.txt --tusk x")) == "run has no option --tusk"
    assert problem(words("run a --merge wood")) == "--merge takes tree, refine, concat, none, not wood"


def test_links_in_the_course_lead_to_files_and_headings() -> None:
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
