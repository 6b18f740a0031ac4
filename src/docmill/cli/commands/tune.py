"""`docmill tune`: finds the fastest engine settings by measurement."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path

import click
import yaml

from docmill.cli.context import CliContext, pass_context
from docmill.cli.display.output import new_table, print_json, print_table
from docmill.cli.model_download import ensure_model
from docmill.cli.options import engine_option, json_option, model_option, require_new_file
from docmill.cli.services.worker_options import WorkerFlags, engine_spec
from docmill.engine_table import CPU_ENGINES
from docmill.formatting import gib
from docmill.insight.tuning import Measurement, Workload, as_config, best_of, grid_for
from docmill.insight.tuning import tune as tuned
from docmill.producer.intake.documents import Document, Skipped
from docmill.producer.intake.sources import read_documents
from docmill.producer.model_text import ModelText, load_model_text
from docmill.producer.task_files import load_task
from docmill.sizing.machine import read_machine

_QUICK, _FULL = (6_000, 32), (20_000, 64)  # tokens of text and of each answer


@click.command(
    epilog="""\b
Examples:
  docmill tune --quick
  docmill tune novel.txt --model mistral-7b --out config.yaml
"""
)
@click.argument("path", required=False)
@click.option("--quick", is_flag=True, help="Try fewer values with less text: about one minute instead of five.")
@model_option
@engine_option
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the best settings to this file.")
@json_option
@pass_context
def tune(
    context: CliContext,
    path: str | None,
    quick: bool,
    model: str | None,
    engine: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure the engine with different threads, batch sizes, cache types and chunk sizes, and show the fastest.

    PATH is a text to measure with; by default Python's language reference. Run this on an otherwise idle machine.
    `--out` writes a config.yaml with the best settings.
    """
    require_new_file(out)
    name = ensure_model(context, model)
    spec = engine_spec(context.settings, context.profile, WorkerFlags(model=model, engine=engine))
    text = load_model_text(name, context.settings.home)
    text_tokens, output_tokens = _QUICK if quick else _FULL
    workload = Workload(_document(path), load_task("summarize"), text, text_tokens, output_tokens)
    cores = read_machine(context.settings.home).cpu.engine_threads
    room = spec.window - output_tokens - _prompt_tokens(text, workload)
    grid = grid_for(spec, cores, on_cpu=spec.engine in CPU_ENGINES, quick=quick, max_chunk_tokens=room)
    measured: list[Measurement] = []
    with context.console.status(f"run 1 of {grid.runs}") as progress:
        for one in tuned(spec, grid, workload):
            measured.append(one)
            progress.update(f"run {len(measured) + 1} of {grid.runs}")
    best = best_of(measured)
    config = yaml.safe_dump(as_config(name, best.settings), sort_keys=False)
    if out is not None:
        out.write_text(f"# by `docmill tune` for {spec.engine} on this machine\n{config}", encoding="utf-8")
    if as_json:
        print_json({"engine": spec.engine, "runs": [asdict(one) for one in measured], "best": asdict(best)})
        return
    _show(measured, best)
    click.echo(f"\n{f'written to {out}' if out else config}")


def _show(measured: list[Measurement], best: Measurement) -> None:
    right = ("jobs", "seconds", "memory", "text tokens/s", "")
    table = new_table("varied", "threads", "batch size", "cache", "chunk", right=right)
    for one in measured:
        settings = one.settings
        table.add_row(
            one.varied,
            str(settings.threads or "auto"),
            str(settings.batch_size),
            settings.quantization or "auto",
            f"{settings.chunk_tokens:,}",
            f"{one.jobs}" if one.jobs else "",
            f"{one.seconds:.1f}" if one.seconds else "",
            gib(one.peak_memory_bytes) if one.peak_memory_bytes else "",
            f"{one.text_tokens_per_s:,.0f}" if one.text_tokens_per_s else f"failed: {one.error[:60]}",
            "<- best" if one is best else "",
        )
    print_table(table)


def _document(path: str | None) -> Document:
    if path is None:
        from pydoc_data.topics import topics

        content = "\n\n".join(topics[name] for name in sorted(topics) if len(topics[name]) > 1_500)
        return Document(name="python-reference", source="python", open=lambda: iter(io.StringIO(content)))
    for document in read_documents([path]):
        if isinstance(document, Skipped):
            raise click.UsageError(f"{document.name}: {document.reason}")
        return document
    raise click.UsageError(f"{path} has no document")


def _prompt_tokens(text: ModelText, workload: Workload) -> int:
    """Tokens of the prompt with an empty chunk."""
    user = workload.task.chunk.render(text="", document=workload.document.name, index=1)
    return len(text.renderer.render(workload.task.file.system, user).ids) + 8
