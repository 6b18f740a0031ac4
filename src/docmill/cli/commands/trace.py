"""`docmill trace`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click
from rich.text import Text
from rich.tree import Tree

from docmill.cli.context import CliContext, pass_context
from docmill.cli.display.output import print_json, stdout_console
from docmill.cli.options import json_option
from docmill.insight.trace import Part, TracedText
from docmill.insight.trace import trace as traced_texts
from docmill.producer.composition import Backend
from docmill.storage.reads.provenance import StoredDocument, read_document
from docmill.storage.reads.tailed_jobs import TailedJobs

_QUOTED = 160  # characters of a passage


@click.command(
    epilog="""\b
Examples:
  docmill trace harbour.txt
  docmill trace reports/q3.md --batch 261124-k7q2mx --json | jq .texts[0].sentences
"""
)
@click.argument("document")
@click.option("--batch", default="latest", show_default=True, help="The batch, or the beginning of its id.")
@json_option
@pass_context
def trace(context: CliContext, document: str, batch: str, as_json: bool) -> None:  # noqa: FBT001
    """Show what a summary was made of, level by level, and which passages each of its sentences is nearest to.

    Spans are characters of the document's text. A score is how alike the words of two sentences are, 0 to 1; no
    passage: look twice.
    """
    database = Backend(context.settings).database
    batch_id = Backend(context.settings).batches.find(batch).id
    stored = read_document(database, TailedJobs(database).document(batch_id, document))
    texts = traced_texts(stored)
    if as_json:
        print_json(_as_record(stored, texts))
        return
    if not texts:
        click.echo(f"{stored.name} of {batch_id} is {stored.state} and has no answer yet", err=True)
        return
    for number, text in enumerate(texts):
        _print(stored, text, is_window=stored.final is None, number=number)


def _as_record(stored: StoredDocument, texts: list[TracedText]) -> dict[str, Any]:
    return {
        "document": stored.name,
        "batch": stored.batch_id,
        "source": stored.source,
        "state": str(stored.state),
        "merge_strategy": stored.plan["merge_strategy"],
        "texts": [asdict(text) for text in texts],
    }


def _print(stored: StoredDocument, traced: TracedText, *, is_window: bool, number: int) -> None:
    console = stdout_console()
    whole = f"answer of window {number}" if is_window else "summary"
    root = traced.made_of
    tree = Tree(Text(f"{stored.name}: {whole}, from characters {_span(root.char_start, root.char_end)}"))
    for part in [root] if root.job_id is not None else root.parts:
        _grow(tree, part)
    console.print(tree)
    for sentence in traced.sentences:
        console.print(Text(f"\n{' '.join(sentence.text.split())}", style="bold"))
        for passage in sentence.passages:
            where = f"  {passage.score:.2f}  chunk {passage.chunk}, {_span(passage.char_start, passage.char_end)}: "
            console.print(Text(where, style="cyan") + Text(_quoted(passage.text), style="default"))
        if not sentence.passages:
            console.print(Text("  no passage is like it", style="yellow"))
    console.print()


def _grow(tree: Tree, part: Part) -> None:
    if part.level is None:
        tree.add(Text(f"chunk {part.position}: characters {_span(part.char_start, part.char_end)}"))
        return
    name = f"level {part.level}, position {part.position} (job {part.job_id})"
    branch = tree.add(Text(f"{name}: characters {_span(part.char_start, part.char_end)}"))
    for below in part.parts:
        _grow(branch, below)


def _span(start: int, end: int) -> str:
    return f"{start:,}-{end:,}"


def _quoted(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _QUOTED else line[: _QUOTED - 1] + "…"
