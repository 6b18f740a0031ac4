"""`docmill chunks`: the plan of a submission, without submitting."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from docmill.cli.context import CliContext, pass_context
from docmill.cli.display.output import new_table, print_table
from docmill.cli.submission_options import planning_options, prepare, print_skipped
from docmill.formatting import counted, duration
from docmill.producer.errors import ProducerError
from docmill.storage.errors import StorageError

if TYPE_CHECKING:
    from docmill.producer.intake.documents import Document
    from docmill.producer.submission import Submission


@click.command(
    epilog="""\b
Examples:
  docmill chunks novel.txt
  docmill chunks novel.txt --chunk-tokens 2000 --overlap 100 --json | head -3
"""
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@planning_options
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON per chunk, with character offsets.")
@pass_context
def chunks(context: CliContext, /, paths: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Show how documents would be cut into chunks, and estimate what it takes to run them.

    Offsets count characters of the text as it was loaded: decoded, with \\n as line ends, without HTML tags.
    """
    from docmill.producer.intake.documents import Skipped
    from docmill.producer.intake.sources import read_documents

    submission = prepare(context, paths, options)
    skipped = 0
    plans: list[_DocumentPlan] = []
    for document in read_documents(submission.inputs, submission.intake):
        if isinstance(document, Skipped):
            skipped += 1
            print_skipped(document.name, document.reason)
            continue
        plan = _DocumentPlan(document, submission)
        try:
            for chunk in plan.read_chunks():
                if as_json:
                    click.echo(json.dumps(chunk, ensure_ascii=False))
        except ProducerError as error:
            skipped += 1
            print_skipped(document.name, error)
        else:
            plans.append(plan)
    if not as_json:
        _print(context, submission, plans)
    if skipped:
        context.exit(1)


class _DocumentPlan:
    """Counts the chunks of one document while they are read."""

    def __init__(self, document: Document, submission: Submission) -> None:
        self._document = document
        self._submission = submission
        self.name = document.name
        self.chunks = self.tokens = self.prompt_tokens = 0

    def read_chunks(self) -> Iterator[dict[str, object]]:
        from docmill.producer.chunking.document_chunks import split_document

        submission = self._submission
        for chunk in split_document(self._document, submission.plan, submission.task, submission.model_text):
            self.chunks += 1
            self.tokens += chunk.tokens
            self.prompt_tokens += len(chunk.prompt.ids)
            yield {"document": self.name} | {name: getattr(chunk, name) for name in ("index", "start", "end", "tokens")}

    @property
    def levels(self) -> list[int]:
        return self._submission.plan.levels(self.chunks)

    @property
    def fill(self) -> float:
        return self.tokens / (self.chunks * self._submission.plan.chunk_tokens) if self.chunks else 0.0

    @property
    def planned_tokens(self) -> int:
        plan = self._submission.plan
        merges = sum(jobs * (plan.chunk_tokens + plan.output_tokens(jobs)) for jobs in self.levels[1:])
        return self.prompt_tokens + self.chunks * plan.output_tokens(self.chunks) + merges


def _print(context: CliContext, submission: Submission, plans: list[_DocumentPlan]) -> None:
    plan, model = submission.plan, submission.model_text.model.name
    table = new_table("document", right=("chunks", "tokens", "fill", "jobs", "levels"))
    for document in plans:
        table.add_row(
            document.name,
            f"{document.chunks:,}",
            f"{document.tokens:,}",
            f"{document.fill:.0%}",
            f"{sum(document.levels):,}",
            str(len(document.levels)),
        )
    print_table(table)
    jobs = sum(sum(document.levels) for document in plans)
    click.echo(
        f"\n{counted(len(plans), 'document')}, {counted(sum(p.tokens for p in plans), 'token')}, "
        f"about {counted(jobs, 'job')}\n"
        f"model {model}, window {plan.context_window:,} tokens, {plan.output_reserve:,} reserved for output\n"
        f"a chunk holds up to {plan.chunk_tokens:,} tokens: {plan.chunk_tokens_from}"
    )
    rate = None
    with suppress(StorageError):
        rate = context.backend.reports.recent_tokens_per_s(model)
    if rate:
        seconds = sum(document.planned_tokens for document in plans) / rate
        click.echo(f"about {duration(seconds)} at the {rate:,.0f} tokens/s measured recently")
    else:
        click.echo("time: unknown until the model has run here")
