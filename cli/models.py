"""`docmill models`: list, pull, show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from catalogue.entries import ENTRIES, Entry, find_entry
from catalogue.errors import CatalogueError, ModelNotFound
from catalogue.model import Model, ModelKind
from catalogue.resolve import find_model, local_models
from cli.context import CliContext, pass_context
from cli.fetch import pull_with_progress
from cli.output import print_json, print_table
from producer.model_text import load_model_text
from worker.engines.registry import choose_engine


@click.group(epilog="\b\nExamples:\n  docmill models list\n  docmill models pull smollm2-135m-instruct")
def models() -> None:
    """The catalogue, and the models that are here.

    A model is named by its catalogue name, by the path of a GGUF file or a model directory, or by OWNER/REPO once
    it was pulled from the Hugging Face Hub.
    """


@models.command("list", epilog="\b\nExample:\n  docmill models list --json")
@click.option("--json", "as_json", is_flag=True)
@pass_context
def list_models(context: CliContext, as_json: bool) -> None:  # noqa: FBT001
    """List the catalogue and what else is here."""
    home = context.settings.home
    rows = [_catalogue_row(entry, home) for entry in ENTRIES]
    known = {row["name"] for row in rows}
    rows += [_local_row(model) for model in local_models(home) if model.name not in known]
    if as_json:
        print_json(rows)
        return
    table = Table("model", "parameters", "license", "here", box=None, pad_edge=False)
    table.add_column("window", justify="right")
    for row in rows:
        here = "yes" if row["path"] else "no"
        table.add_row(row["name"], row["parameters"] or "", row["license"] or "", here, f"{row['context_window']:,}")
    print_table(table)


@models.command(
    epilog="\b\nExamples:\n  docmill models pull smollm2-135m-instruct\n"
    "  docmill models pull hf:HuggingFaceTB/SmolLM2-135M-Instruct"
)
@click.argument("name")
@click.option("--json", "as_json", is_flag=True)
@pass_context
def pull(context: CliContext, name: str, as_json: bool) -> None:  # noqa: FBT001
    """Fetch a catalogue model, or hf:OWNER/REPO[:FILE] from the Hugging Face Hub; verified, resumed where it broke."""
    model = pull_with_progress(context, name, context.settings.home)
    if as_json:
        print_json(_local_row(model))


@models.command(epilog="\b\nExample:\n  docmill models show smollm2")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True)
@pass_context
def show(context: CliContext, name: str, as_json: bool) -> None:  # noqa: FBT001
    """Show one model: its files, window, vocabulary, and the engine that would run it."""
    home = context.settings.home
    try:
        row = _details(find_model(name, home), home)
    except ModelNotFound:
        entry = find_entry(name)
        if entry is None:
            raise
        row = _catalogue_row(entry, home)
    if as_json:
        print_json(row)
        return
    for key, value in row.items():
        click.echo(f"{key.replace('_', ' '):22} {'' if value is None else value}")


def _catalogue_row(entry: Entry, home: Path) -> dict[str, Any]:
    try:
        path = str(find_model(entry.name, home).path)
    except CatalogueError:
        path = None
    return {
        "name": entry.name,
        "parameters": entry.parameters,
        "license": entry.license,
        "context_window": entry.context_window,
        "suggested_chunk_tokens": entry.suggested_chunk_tokens,
        "source": entry.source.requirement,
        "card": entry.card,
        "path": path,
    }


def _local_row(model: Model) -> dict[str, Any]:
    entry = find_entry(model.name)
    return {
        "name": model.name,
        "parameters": entry.parameters if entry else None,
        "license": entry.license if entry else None,
        "context_window": model.context_window,
        "kind": str(model.kind),
        "path": str(model.path),
    }


def _details(model: Model, home: Path) -> dict[str, Any]:
    text = load_model_text(model.name if find_entry(model.name) else str(model.path), home)
    vocabulary = text.tokenizer.vocabulary
    size = model.path.stat().st_size if model.kind is not ModelKind.DIRECTORY else None
    return _local_row(model) | {
        "size_bytes": size,
        "sha256": model.sha256,
        "suggested_chunk_tokens": model.suggested_chunk_tokens,
        "chat_template": vocabulary.chat_template is not None,
        "end_tokens": list(vocabulary.eos_ids),
        "engine": choose_engine(model),
    }
