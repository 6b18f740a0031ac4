"""What every command is given: the settings, read on first use, and how to speak and to end."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console

from docmill.settings.defaults import Settings
from docmill.settings.load import load_settings


class CliContext:
    """The global options of one call."""

    def __init__(self, *, config: Path | None, profile: str | None, home: Path | None, debug: bool) -> None:
        self.config = config
        self.profile = profile
        self.home = home
        self.debug = debug

    @cached_property
    def settings(self) -> Settings:
        """The effective settings. Raises SettingsError."""
        overrides: Mapping[str, Any] = {"home": str(self.home)} if self.home else {}
        settings = load_settings(self.config, overrides)
        settings.profile(self.profile)
        return settings

    @cached_property
    def console(self) -> Console:
        """Standard error, for progress and remarks."""
        return Console(stderr=True)

    @property
    def global_options(self) -> list[str]:
        """The same options, for a command of docmill that is started as a process of its own."""
        options: list[str] = []
        if self.config is not None:
            options += ["--config", str(self.config.absolute())]
        if self.profile is not None:
            options += ["--profile", self.profile]
        if self.home is not None:
            options += ["--home", str(self.home.absolute())]
        return options

    def exit(self, code: int) -> NoReturn:
        """End the command with this exit code."""
        click.get_current_context().exit(code)


pass_context = click.make_pass_decorator(CliContext)
