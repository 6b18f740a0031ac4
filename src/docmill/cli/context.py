"""What every command receives: the settings and the backend, made on first use, and the console."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from rich.console import Console

    from docmill.producer.composition import Backend
    from docmill.settings.defaults import Settings


@dataclass(kw_only=True)
class CliContext:
    """The global options of one call, and what is made from them."""

    config: Path | None
    profile: str | None
    home: Path | None

    @cached_property
    def settings(self) -> Settings:
        """The effective settings. Raises SettingsError."""
        from docmill.settings.load import load_settings

        overrides: Mapping[str, Any] = {"home": str(self.home)} if self.home else {}
        settings = load_settings(self.config, overrides)
        settings.profile(self.profile)
        return settings

    @cached_property
    def backend(self) -> Backend:
        """Database, broker and what works on them."""
        from docmill.producer.composition import Backend

        return Backend(self.settings)

    @cached_property
    def console(self) -> Console:
        """Standard error, for progress and messages."""
        from rich.console import Console

        return Console(stderr=True)

    @property
    def global_options(self) -> list[str]:
        """The same options, for a docmill command that is started as a child process."""
        options: list[str] = []
        if self.config is not None:
            options += ["--config", str(self.config.absolute())]
        if self.profile is not None:
            options += ["--profile", self.profile]
        if self.home is not None:
            options += ["--home", str(self.home.absolute())]
        return options

    def model_name(self, model: str | None) -> str:
        """The model named by `--model`, or the profile's."""
        return model or self.settings.profile(self.profile).model

    def exit(self, code: int) -> NoReturn:
        """End the command with this exit code."""
        click.get_current_context().exit(code)


pass_context = click.make_pass_decorator(CliContext)
