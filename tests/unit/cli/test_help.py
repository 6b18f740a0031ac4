from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from docmill.cli.main import cli
from tests.unit.cli.conftest import Docmill


def commands(command: click.Command, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from commands(child, *path, name)


ALL = dict(commands(cli))


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_has_help_with_an_example_and_says_what_its_options_are_for(
    docmill: Docmill, path: tuple[str, ...]
) -> None:
    shown = docmill(*path, "--help")
    assert (shown.code, shown.err) == (0, "")
    _, _, examples = shown.out.partition("Example")
    assert "docmill " in examples
    for option in ALL[path].params:
        assert not isinstance(option, click.Option) or option.hidden or option.help, option.name


def test_the_commands_are_those_that_were_promised() -> None:
    assert {path[0] for path in ALL if path} >= {
        "run", "up", "submit", "status", "results", "cancel", "retry", "worker", "dispatcher", "flower", "tokens",
        "chunks", "models", "db", "config", "demo", "plan", "doctor", "try", "tune", "pause", "resume", "query",
        "export", "trace", "report", "tail", "health",
    }  # fmt: skip
    assert {path for path in ALL if len(path) == 2} == {
        ("models", "list"), ("models", "pull"), ("models", "show"), ("db", "upgrade"), ("db", "current"),
        ("db", "adopt"), ("config", "show"),
    }  # fmt: skip


@pytest.mark.parametrize("path", [(), ("models",), ("db",), ("config",)], ids=" ".join)
def test_a_group_alone_shows_its_help_as_wrong_use(docmill: Docmill, path: tuple[str, ...]) -> None:
    shown = docmill(*path)
    assert shown.code == 2
    assert "Commands:" in shown.out + shown.err


def test_the_version_is_shown(docmill: Docmill) -> None:
    shown = docmill("--version")
    assert (shown.code, shown.out.startswith("docmill, version ")) == (0, True)
