"""Options and arguments that several commands share."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from docmill.cli.completion import complete_batches, complete_models, complete_tasks
from docmill.engine_table import ENGINE_NAMES
from docmill.formatting import parse_duration, parse_size

T = TypeVar("T")

batch_argument = click.argument("batch", shell_complete=complete_batches)
optional_batch_argument = click.argument("batch", required=False, shell_complete=complete_batches)
batch_option = click.option(
    "--batch", metavar="BATCH", shell_complete=complete_batches, help="The document's batch; by default the latest."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
model_option = click.option("--model", shell_complete=complete_models, help="Use this model instead of the profile's.")
task_option = click.option(
    "--task", default="summarize", show_default=True, metavar="NAME|FILE", shell_complete=complete_tasks,
    help="A built-in task, or the YAML file of your own.",
)  # fmt: skip
engine_option = click.option(
    "--engine", type=click.Choice(["auto", *ENGINE_NAMES]), help="By default chosen from the model's format."
)
slots_option = click.option(
    "--slots", metavar="N", type=click.IntRange(min=1), help="Number of jobs that the engine runs at once."
)
metrics_port_option = click.option(
    "--metrics-port", metavar="PORT", type=click.IntRange(1, 65535), help="Serve Prometheus metrics on this port."
)
metrics_address_option = click.option(
    "--metrics-address", metavar="ADDRESS", help="Address for --metrics-port; by default 127.0.0.1."
)
temperature_type = click.FloatRange(0, 5)
top_p_option = click.option(
    "--top-p", type=click.FloatRange(0, 1, min_open=True),
    help="Nucleus sampling: probability mass to keep; 1 disables it.",
)  # fmt: skip
seed_option = click.option("--seed", type=int, help="Seed for repeatable sampling at temperatures above 0.")


def require_new_file(out: Path | None) -> None:
    """Raise UsageError if the file of `--out` exists."""
    if out is not None and out.exists():
        raise click.UsageError(f"{out} already exists and was not changed; give another file with --out")


class Parsed(click.ParamType[T]):
    """A value that `read` makes from its text; its ValueError says what is wrong with the text."""

    def __init__(self, name: str, read: Callable[[str], T]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> T:
        """What `read` returns."""
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def key_value(pair: str, option: str) -> tuple[str, str]:
    """The two sides of `KEY=VALUE`. Raises BadParameter for anything else."""
    key, equals, value = pair.partition("=")
    if not equals or not key:
        raise click.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint=option)
    return key, value


def encoding_name(name: str) -> str:
    """The name of a text encoding, unchanged. Raises ValueError if Python does not know it."""
    try:
        codecs.lookup(name)
    except (LookupError, ValueError):
        raise ValueError(f"there is no encoding {name!r}; try utf-8, utf-16, cp1252 or latin-1") from None
    return name


memory_size = Parsed("size", parse_size)  # bytes, from 24GiB, 8192MiB or 24GB
duration_type = Parsed("duration", parse_duration)  # seconds, from 30m, 24h or 7d
encoding_type = Parsed("encoding", encoding_name)
