"""The options that `run`, `submit` and `chunks` share: what to ask, how long, how to cut and how to merge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from docmill.cli.context import CliContext
from docmill.cli.model_download import ensure_model
from docmill.cli.options import EncodingName
from docmill.formatting import parse_duration
from docmill.producer.composition import Backend
from docmill.producer.intake.documents import Document, Skipped
from docmill.producer.submission import Submission, SubmitOptions, SubmittedBatch
from docmill.producer.task_files import MergeStrategy, builtin_names
from docmill.settings.sampling_presets import PRESETS

Command = TypeVar("Command", bound=Callable[..., Any])

_PLANNING = (
    click.option("--task", default="summarize", show_default=True, metavar="NAME|FILE",
                 help=f"{', '.join(builtin_names())}, or a YAML file of your own."),
    click.option("--prompt", metavar="TEXT", help='A task on the spot, as in "List every date in: {text}".'),
    click.option("--model", help="Use this model instead of the profile's."),
    click.option("--merge", type=click.Choice([str(s) for s in MergeStrategy]),
                 help="How the chunks' answers become one; the task decides by default."),
    click.option("--summary-tokens", type=click.IntRange(min=1), help="Length of the summary asked for."),
    click.option("--max-tokens", type=click.IntRange(min=1), help="Longest output of a single job."),
    click.option("--chunk-tokens", type=click.IntRange(min=1), help="Largest chunk; capped by the window."),
    click.option("--overlap", "overlap_tokens", type=click.IntRange(min=0),
                 help="Tokens that neighbouring chunks share."),
    click.option("--encoding", type=EncodingName(), help="Encoding of the documents, where it is not UTF-8."),
    click.option("--text-field", help="The field or column of JSONL and CSV that holds the text."),
)  # fmt: skip

_SAMPLING = (
    click.option("--temperature", type=click.FloatRange(0, 5), help="0 is greedy and repeatable."),
    click.option("--preset", type=click.Choice(list(PRESETS)),
                 help=f"A temperature by name: {', '.join(f'{name} {value}' for name, value in PRESETS.items())}."),
    click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), help="Draw from this share; 1 is off."),
    click.option("--top-k", type=click.IntRange(min=0), help="Draw from this many tokens; 0 is off."),
    click.option("--min-p", type=click.FloatRange(0, 1), help="Leave out what is this much less likely; 0 is off."),
    click.option("--repetition-penalty", type=click.FloatRange(0, 10, min_open=True), help="1 is off."),
    click.option("--seed", type=int, help="Makes sampling above temperature 0 repeatable."),
    click.option("--stop", multiple=True, help="End the text at this string; may be repeated."),
)  # fmt: skip

_BATCH = (
    click.option("--priority", type=click.IntRange(0, 9), default=5, show_default=True, help="0 is served first."),
    click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Kept with the batch; may be repeated."),
    click.option("--deadline", metavar="24h", help="Expire what has not run by then (30m, 24h, 7d)."),
    click.option("--idempotency-key", metavar="KEY", help="A submit with the same key returns the first's batch."),
    click.option("--reuse/--no-reuse", default=True, show_default=True,
                 help="Take the answer of an equal job that was computed before."),
)  # fmt: skip

_SAMPLING_NAMES = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "stop")


def planning_options(command: Command) -> Command:
    """Options that decide how documents are cut and merged."""
    return _with(command, _PLANNING)


def submission_options(command: Command) -> Command:
    """All options of a submission."""
    return _with(command, (*_PLANNING, *_SAMPLING, *_BATCH))


def prepare(context: CliContext, backend: Backend, paths: Sequence[str], options: dict[str, Any]) -> Submission:
    """Turn the command's options into a checked submission; fetches the model where it is small and not here."""
    _name_the_temperature(options)
    sampling = {name: value for name in _SAMPLING_NAMES if (value := options.pop(name, None)) not in (None, ())}
    metadata = dict(_key_value(pair) for pair in options.pop("metadata", ()))
    deadline = options.pop("deadline", None)
    deadline_s = _seconds(deadline) if deadline else None
    ensure_model(context, options.get("model") or context.settings.profile(context.profile).model)
    return backend.prepare(
        paths,
        SubmitOptions(profile=context.profile, sampling=sampling, metadata=metadata, deadline_s=deadline_s, **options),
    )


@dataclass
class IntakeReport:
    """Says on standard error what was skipped, and why, as the documents are read."""

    skipped: int = 0
    read: int = 0

    def __call__(self, document: Document | Skipped) -> None:
        if isinstance(document, Skipped):
            self.skipped += 1
            click.echo(f"skipped {document.name}: {document.reason}", err=True)
        else:
            self.read += 1


def say_warnings(submitted: SubmittedBatch, already_said: int) -> None:
    """Print the warnings, and what was skipped after it was read."""
    for warning in submitted.warnings:
        click.echo(f"warning: {warning}", err=True)
    for skipped in list(submitted.skipped)[already_said:]:
        click.echo(f"skipped {skipped.name}: {skipped.reason}", err=True)


def _with(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def _name_the_temperature(options: dict[str, Any]) -> None:
    preset = options.pop("preset", None)
    if preset is not None and options.get("temperature") is not None:
        raise click.UsageError("--preset is a --temperature by name: use one of them")
    if preset is not None:
        options["temperature"] = PRESETS[preset]


def _key_value(pair: str) -> tuple[str, str]:
    key, equals, value = pair.partition("=")
    if not equals or not key:
        raise click.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="--metadata")
    return key, value


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--deadline") from None
