"""The options that `run`, `submit` and `chunks` share, and the submission made from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from docmill.cli.context import CliContext
from docmill.cli.options import (
    duration_type,
    encoding_type,
    key_value,
    model_option,
    seed_option,
    task_option,
    temperature_type,
    top_p_option,
)
from docmill.producer.task_files import MergeStrategy
from docmill.settings.sampling_presets import PRESETS

if TYPE_CHECKING:
    from docmill.producer.intake.documents import Document, Skipped
    from docmill.producer.submission import Submission, SubmittedBatch

Command = TypeVar("Command", bound=Callable[..., Any])

_PLANNING = (
    task_option,
    click.option("--prompt", metavar="TEXT", help='A prompt instead of a task, such as "List every date in: {text}".'),
    model_option,
    click.option("--merge", type=click.Choice([str(s) for s in MergeStrategy]),
                 help="How the chunks' answers are combined; by default the task decides."),
    click.option("--summary-tokens", type=click.IntRange(min=1), help="Target length of the summary."),
    click.option("--max-tokens", type=click.IntRange(min=1), help="Maximum output of one job."),
    click.option("--chunk-tokens", type=click.IntRange(min=1), help="Maximum size of a chunk, within the window."),
    click.option("--overlap", "overlap_tokens", type=click.IntRange(min=0), help="Tokens shared by adjacent chunks."),
    click.option("--encoding", type=encoding_type, help="Encoding of the documents, if it is not UTF-8."),
    click.option("--text-field", help="The field or column that holds the text in JSONL and CSV files."),
)  # fmt: skip

_SAMPLING = (
    click.option("--temperature", type=temperature_type, help="Sampling temperature; 0 is greedy and repeatable."),
    click.option("--preset", type=click.Choice(list(PRESETS)),
                 help=f"A named temperature: {', '.join(f'{name} {value}' for name, value in PRESETS.items())}."),
    top_p_option,
    click.option("--top-k", type=click.IntRange(min=0), help="Sample from the K likeliest tokens; 0 disables it."),
    click.option("--min-p", type=click.FloatRange(0, 1),
                 help="Drop tokens below this fraction of the likeliest token's probability; 0 disables it."),
    click.option("--repetition-penalty", type=click.FloatRange(0, 10, min_open=True),
                 help="Penalty for tokens that have occurred before; 1 disables it."),
    seed_option,
    click.option("--stop", multiple=True, help="Stop at this string; may be repeated."),
)  # fmt: skip

_BATCH = (
    click.option("--priority", type=click.IntRange(0, 9), default=5, show_default=True, help="0 is served first."),
    click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Stored with the batch; may be repeated."),
    click.option("--deadline", "deadline_s", type=duration_type, metavar="24h",
                 help="Jobs that have not run by then expire (30m, 24h, 7d)."),
    click.option("--idempotency-key", metavar="KEY",
                 help="Submitting again with the same key returns the first batch."),
    click.option("--reuse/--no-reuse", default=True, show_default=True,
                 help="Reuse the result of an identical finished job."),
)  # fmt: skip

_SAMPLING_NAMES = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "stop")


def planning_options(command: Command) -> Command:
    """Options that decide how documents are cut and merged."""
    return _with(command, _PLANNING)


def submission_options(command: Command) -> Command:
    """All options of a submission."""
    return _with(command, (*_PLANNING, *_SAMPLING, *_BATCH))


def prepare(context: CliContext, paths: Sequence[str], options: dict[str, Any]) -> Submission:
    """Turn a command's options into a checked submission, and download its model if it is small and missing."""
    from docmill.cli.model_download import ensure_model
    from docmill.producer.submission import SubmitOptions

    preset = options.pop("preset", None)
    if preset is not None:
        if options.get("temperature") is not None:
            raise click.UsageError("--preset is a named temperature: give either --preset or --temperature")
        options["temperature"] = PRESETS[preset]
    sampling = {name: value for name in _SAMPLING_NAMES if (value := options.pop(name, None)) not in (None, ())}
    metadata = dict(key_value(pair, "--metadata") for pair in options.pop("metadata", ()))
    ensure_model(context, options.get("model"))
    return context.backend.prepare(
        paths, SubmitOptions(profile=context.profile, sampling=sampling, metadata=metadata, **options)
    )


def submit_and_report(context: CliContext, submission: Submission, **options: Any) -> SubmittedBatch:
    """Submit, and print on standard error what was skipped, as it is read, and the warnings."""
    from docmill.producer.intake.documents import Skipped

    reported: list[Skipped] = []

    def report(document: Document | Skipped) -> None:
        if isinstance(document, Skipped):
            reported.append(document)
            print_skipped(document.name, document.reason)

    submitted = context.backend.submit(submission, on_document=report, **options)
    for warning in submitted.warnings:
        click.echo(f"warning: {warning}", err=True)
    for skipped in list(submitted.skipped)[len(reported) :]:
        print_skipped(skipped.name, skipped.reason)
    return submitted


def print_skipped(document: str, reason: object) -> None:
    """Say on standard error that a document was left out."""
    click.echo(f"skipped {document}: {reason}", err=True)


def _with(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command
