"""`docmill tokens`: a text as the model sees it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from docmill.cli.context import CliContext, pass_context
from docmill.cli.display.output import print_json
from docmill.cli.options import json_option, model_option, task_option
from docmill.formatting import counted

if TYPE_CHECKING:
    from docmill.producer.submission import Submission


@click.command(
    epilog="""\b
Examples:
  docmill tokens novel.txt
  echo understanding | docmill tokens --pieces
  docmill tokens --text "a short text" --json
"""
)
@click.argument("path", required=False)
@click.option("--text", help="Count this text instead of a file.")
@click.option("--pieces", is_flag=True, help="Show the text of each token.")
@model_option
@task_option
@json_option
@pass_context
def tokens(
    context: CliContext,
    path: str | None,
    text: str | None,
    pieces: bool,
    model: str | None,
    task: str,
    as_json: bool,
) -> None:
    """Count the tokens of PATH (or standard input) with the model's own tokenizer.

    Also shows how much of the context window remains for text after the task's template and the longest output.
    """
    from docmill.cli.model_download import ensure_model
    from docmill.producer.batch_plan import room_for_text
    from docmill.producer.submission import SubmitOptions

    if path is not None and text is not None:
        raise click.UsageError("give PATH or --text, not both")
    if path is None and text is None and sys.stdin.isatty():
        raise click.UsageError("give PATH or --text, or pipe a text in")
    ensure_model(context, model)
    submission = context.backend.prepare((path or "-",), SubmitOptions(profile=context.profile, model=model, task=task))
    model_text, plan = submission.model_text, submission.plan
    tokenizer = model_text.tokenizer
    content = _read(submission) if text is None else text
    room = room_for_text(plan, submission.task, model_text)
    token_texts = tokenizer.pieces(content) if pieces else []
    record: dict[str, Any] = {
        "model": model_text.model.name,
        "characters": len(content),
        "tokens": tokenizer.count(content),
        "context_window": plan.context_window,
        "output_tokens": plan.output_reserve,
        "template_tokens": plan.context_window - plan.output_reserve - room,
        "room_for_text": room,
    }
    if as_json:
        if pieces:
            record["pieces"] = [list(pair) for pair in zip(tokenizer.encode(content), token_texts, strict=True)]
        print_json(record)
        return
    if pieces:
        click.echo(" + ".join(f'"{_visible(piece)}"' for piece in token_texts))
    count = record["tokens"]
    click.echo(f"{counted(count, 'token')}, {counted(len(content), 'character')} ({model_text.model.name})")
    share = f"{count / room:.0%} of it" if count <= room else f"{count / room:,.1f} times as much"
    click.echo(
        f"window {plan.context_window:,} = {room:,} for text + {record['template_tokens']:,} template ({task}) + "
        f"{plan.output_reserve:,} output; this text is {share}"
    )


def _read(submission: Submission) -> str:
    from docmill.producer.intake.documents import Skipped
    from docmill.producer.intake.sources import read_documents

    parts: list[str] = []
    for document in read_documents(submission.inputs, submission.intake):
        if isinstance(document, Skipped):
            raise click.ClickException(f"{document.name}: {document.reason}")
        parts += document.open()
    return "".join(parts)


def _visible(piece: str) -> str:
    return piece.replace("\n", "\\n").replace("\t", "\\t").replace(" ", "\u00b7")
