"""`docmill tokens`: a text as the model sees it."""

from __future__ import annotations

import sys

import click

from docmill.cli.context import CliContext, pass_context
from docmill.cli.display.output import print_json
from docmill.cli.model_download import ensure_model
from docmill.cli.options import json_option
from docmill.formatting import counted
from docmill.producer.batch_plan import room_for_text
from docmill.producer.composition import Backend
from docmill.producer.intake.documents import Skipped
from docmill.producer.intake.sources import read_documents
from docmill.producer.submission import Submission, SubmitOptions

_MARK = "\u00b7"


@click.command(
    epilog="""\b
Examples:
  docmill tokens novel.txt
  echo understanding | docmill tokens --pieces
  docmill tokens --text "a text on the spot" --json
"""
)
@click.argument("path", required=False)
@click.option("--text", help="Count this text instead of a file.")
@click.option("--pieces", is_flag=True, help="Show where the text is cut into tokens.")
@click.option("--model", help="Use this model's tokenizer instead of the profile's.")
@click.option("--task", default="summarize", show_default=True, help="The task whose prompt takes room of the window.")
@json_option
@pass_context
def tokens(
    context: CliContext,
    path: str | None,
    text: str | None,
    pieces: bool,  # noqa: FBT001
    model: str | None,
    task: str,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Count the tokens of PATH (or standard input) by the model's own tokenizer.

    Shows what is left of the context window for text, after the task's template and the longest output.
    """
    if path is not None and text is not None:
        raise click.UsageError("give PATH or --text, not both")
    if path is None and text is None and sys.stdin.isatty():
        raise click.UsageError("give PATH or --text, or pipe a text in")
    ensure_model(context, model or context.settings.profile(context.profile).model)
    backend = Backend(context.settings)
    submission = backend.prepare((path or "-",), SubmitOptions(profile=context.profile, model=model, task=task))
    model_text = submission.model_text
    content = _read(submission) if text is None else text
    plan, tokenizer = submission.plan, model_text.tokenizer
    count = tokenizer.count(content)
    room = room_for_text(plan, submission.task, model_text)
    shown = tokenizer.pieces(content) if pieces else []
    if as_json:
        record = {
            "model": model_text.model.name,
            "characters": len(content),
            "tokens": count,
            "context_window": plan.context_window,
            "output_tokens": plan.output_reserve,
            "template_tokens": plan.context_window - plan.output_reserve - room,
            "room_for_text": room,
        }
        if pieces:
            record["pieces"] = [list(pair) for pair in zip(tokenizer.encode(content), shown, strict=True)]
        print_json(record)
        return
    if pieces:
        click.echo(" + ".join(f'"{_visible(piece)}"' for piece in shown))
    click.echo(f"{counted(count, 'token')}, {counted(len(content), 'character')} ({model_text.model.name})")
    share = f"{count / room:.0%} of it" if count <= room else f"{count / room:,.1f} times as much"
    click.echo(
        f"window {plan.context_window:,} = {room:,} for text + {plan.context_window - plan.output_reserve - room:,} "
        f"template ({task}) + {plan.output_reserve:,} output; this text is {share}"
    )


def _read(submission: Submission) -> str:
    parts: list[str] = []
    for document in read_documents(submission.inputs, submission.intake):
        if isinstance(document, Skipped):
            raise click.ClickException(f"{document.name}: {document.reason}")
        parts += document.open()
    return "".join(parts)


def _visible(piece: str) -> str:
    return piece.replace("\n", "\\n").replace("\t", "\\t").replace(" ", _MARK)
