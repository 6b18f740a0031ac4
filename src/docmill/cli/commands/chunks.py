"""`docmill chunks`: the plan of a submission, without submitting."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import click
from rich.table import Table

from docmill.cli.context import CliContext, pass_context
from docmill.cli.display.output import print_table
from docmill.cli.submission_options import planning_options, prepare
from docmill.formatting import counted, duration
from docmill.producer.chunking.document_chunks import split_document
from docmill.producer.composition import Backend
from docmill.producer.errors import ProducerError
from docmill.producer.intake.documents import Document, Skipped
from docmill.producer.intake.sources import read_documents
from docmill.producer.submission import Submission
from docmill.storage.errors import StorageError


@click.command(
    epilog="""\b
Examples:
  docmill chunks novel.txt
  docmill chunks novel.txt --chunk-tokens 2000 --overlap 100 --json | head -3
"""
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@planning_options
@click.option("--json", "as_json", is_flag=True, help="One line a chunk, with character offsets.")
@pass_context
def chunks(context: CliContext, /, paths: tuple[str, ...], as_json: bool, **options: Any) -> None:  # noqa: FBT001
    """Show how documents would be cut, and what it would take to run them.

    Offsets count characters of the loaded text: decoded, with line ends as \\n, without HTML tags.
    """
    backend = Backend(context.settings)
    submission = prepare(context, backend, paths, options)
    skipped = 0
    plans: list[_DocumentPlan] = []
    for document in read_documents(submission.inputs, submission.intake):
        if isinstance(document, Skipped):
            skipped += 1
            click.echo(f"skipped {document.name}: {document.reason}", err=True)
            continue
        plan = _DocumentPlan(document, submission)
        try:
            for line in plan.lines():
                if as_json:
                    click.echo(json.dumps(line, ensure_ascii=False))
        except ProducerError as error:
            skipped += 1
            click.echo(f"skipped {document.name}: {error}", err=True)
            continue
        plans.append(plan)
    if not as_json:
        _print(context, backend, submission, plans)
    if skipped:
        context.exit(1)


class _DocumentPlan:
    """Counts one document's chunks as they pass."""

    def __init__(self, document: Document, submission: Submission) -> None:
        self._document = document
        self._submission = submission
        self.name = document.name
        self.chunks = self.tokens = self.prompt_tokens = 0

    def lines(self) -> Iterator[dict[str, object]]:
        for chunk in split_document(
            self._document, self._submission.plan, self._submission.task, self._submission.model_text
        ):
            self.chunks += 1
            self.tokens += chunk.tokens
            self.prompt_tokens += len(chunk.prompt.ids)
            yield {
                "document": self.name,
                "index": chunk.index,
                "start": chunk.start,
                "end": chunk.end,
                "tokens": chunk.tokens,
            }

    @property
    def levels(self) -> list[int]:
        return self._submission.plan.levels(self.chunks)

    @property
    def fill(self) -> float:
        return self.tokens / (self.chunks * self._submission.plan.chunk_tokens) if self.chunks else 0.0

    @property
    def planned_tokens(self) -> int:
        plan = self._submission.plan
        later = sum(jobs * (plan.chunk_tokens + plan.output_tokens(jobs)) for jobs in self.levels[1:])
        return self.prompt_tokens + self.chunks * plan.output_tokens(self.chunks) + later


def _print(context: CliContext, backend: Backend, submission: Submission, plans: list[_DocumentPlan]) -> None:
    plan = submission.plan
    table = Table("document", box=None, pad_edge=False)
    for heading in ("chunks", "tokens", "fill", "jobs", "levels"):
        table.add_column(heading, justify="right")
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
    planned = sum(document.planned_tokens for document in plans)
    click.echo(
        f"\n{counted(len(plans), 'document')}, {counted(sum(p.tokens for p in plans), 'token')}, "
        f"about {counted(jobs, 'job')}\n"
        f"model {submission.model_text.model.name}, "
        f"window {plan.context_window:,} tokens, {plan.output_reserve:,} kept for output\n"
        f"a chunk holds up to {plan.chunk_tokens:,} tokens: {plan.chunk_tokens_from}"
    )
    rate = None
    with suppress(StorageError):
        rate = backend.reports.recent_tokens_per_s(submission.model_text.model.name)
    if rate:
        click.echo(f"about {duration(planned / rate)} at the {rate:,.0f} tokens/s measured lately")
    else:
        click.echo("time: not known before the model has run here")
