"""`docmill trace`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from docmill.cli.context import CliContext, pass_context
from docmill.cli.display.output import one_line, print_json, stdout_console
from docmill.cli.options import batch_option, json_option

if TYPE_CHECKING:
    from rich.tree import Tree

    from docmill.insight.trace import Part, TracedText
    from docmill.storage.reads.provenance import StoredDocument

_MAX_PASSAGE = 160  # characters


@click.command(
    epilog="""\b
Examples:
  docmill trace harbour.txt
  docmill trace reports/q3.md --batch 261124-k7q2mx --json | jq .texts[0].sentences
"""
)
@click.argument("document")
@batch_option
@json_option
@pass_context
def trace(context: CliContext, document: str, batch: str | None, as_json: bool) -> None:
    """Show which parts of the document a summary was made from, and the passages nearest to each of its sentences.

    Spans are character offsets in the document's text. A score from 0 to 1 says how similar the words of two
    sentences are. Check a sentence without a passage against the document.
    """
    from docmill.insight.trace import trace as traced_texts
    from docmill.storage.reads.provenance import read_document
    from docmill.storage.reads.tailed_jobs import TailedJobs

    database = context.backend.database
    batch_id = context.backend.batches.find(batch or "latest").id
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
    from rich.text import Text
    from rich.tree import Tree

    console = stdout_console()
    whole = f"answer of window {number}" if is_window else "summary"
    root = traced.made_of
    tree = Tree(Text(f"{stored.name}: {whole}, from characters {_span(root.char_start, root.char_end)}"))
    for part in [root] if root.job_id is not None else root.parts:
        _add_part(tree, part)
    console.print(tree)
    for sentence in traced.sentences:
        console.print(Text(f"\n{' '.join(sentence.text.split())}", style="bold"))
        for passage in sentence.passages:
            where = f"  {passage.score:.2f}  chunk {passage.chunk}, {_span(passage.char_start, passage.char_end)}: "
            console.print(Text(where, style="cyan") + Text(one_line(passage.text, _MAX_PASSAGE), style="default"))
        if not sentence.passages:
            console.print(Text("  no similar passage", style="yellow"))
    console.print()


def _add_part(tree: Tree, part: Part) -> None:
    if part.level is None:
        tree.add(f"chunk {part.position}: characters {_span(part.char_start, part.char_end)}")
        return
    name = f"level {part.level}, position {part.position} (job {part.job_id})"
    branch = tree.add(f"{name}: characters {_span(part.char_start, part.char_end)}")
    for source in part.parts:
        _add_part(branch, source)


def _span(start: int, end: int) -> str:
    return f"{start:,}-{end:,}"
