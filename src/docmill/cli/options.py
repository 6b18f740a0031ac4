"""Options and arguments that several commands share."""

from __future__ import annotations

import codecs
from pathlib import Path

import click

from docmill.cli.completion import complete_batches, complete_models, complete_tasks
from docmill.engine_table import ENGINE_NAMES
from docmill.formatting import parse_duration, parse_size

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


def key_value(pair: str, option: str) -> tuple[str, str]:
    """The two sides of `KEY=VALUE`. Raises BadParameter for anything else."""
    key, equals, value = pair.partition("=")
    if not equals or not key:
        raise click.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint=option)
    return key, value


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


class Duration(click.ParamType[float]):
    """A duration such as `30m`, `24h` or `7d`. Gives seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The duration in seconds."""
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class EncodingName(click.ParamType[str]):
    """The name of a text encoding that Python knows."""

    name = "encoding"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name as it was given."""
        try:
            codecs.lookup(value)
        except (LookupError, ValueError):
            self.fail(f"there is no encoding {value!r}; try utf-8, utf-16, cp1252 or latin-1", param, ctx)
        return value
