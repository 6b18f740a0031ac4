"""Options that several commands have."""

from __future__ import annotations

import codecs

import click

from docmill.engine_table import ENGINE_NAMES
from docmill.formatting import parse_size

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
engine_option = click.option(
    "--engine", type=click.Choice(["auto", *ENGINE_NAMES]), help="Chosen by the model where nothing is said."
)
slots_option = click.option("--slots", metavar="N", type=click.IntRange(min=1), help="Jobs in the engine at once.")

metrics_port_option = click.option(
    "--metrics-port", metavar="PORT", type=click.IntRange(1, 65535), help="Export Prometheus metrics here."
)
metrics_address_option = click.option(
    "--metrics-address", metavar="ADDRESS", help="Where --metrics-port listens; 127.0.0.1 by default."
)


class MemorySize(click.ParamType[int]):
    """A size of memory with its unit, such as `24GiB`, `8192MiB` or `24GB`. Gives bytes."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The size in bytes."""
        if isinstance(value, int):
            return value
        try:
            return parse_size(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class EncodingName(click.ParamType[str]):
    """The name of a text encoding that Python knows."""

    name = "encoding"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name as it was given; fails for one that no codec has."""
        try:
            codecs.lookup(value)
        except (LookupError, ValueError):
            self.fail(f"there is no encoding {value!r}; try utf-8, utf-16, cp1252 or latin-1", param, ctx)
        return value
