"""`docmill doctor`: what is right and wrong with this machine, and which model and settings suit it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from docmill.cli.context import CliContext, pass_context
from docmill.cli.display.output import print_json, print_table, stdout_console
from docmill.cli.display.spinner import waiting
from docmill.cli.options import MemorySize, json_option
from docmill.formatting import counted, gib, gib_of
from docmill.insight.advice.config_text import config_text
from docmill.insight.advice.recommend import Choice, Recommendation, UseCase, recommend
from docmill.insight.checkup.run_checkup import run_checkup
from docmill.insight.diagnosis.run_diagnosis import diagnose_batch
from docmill.insight.findings import Finding, Status, worst
from docmill.producer.composition import Backend
from docmill.sizing.catalogue_fit import Fit
from docmill.sizing.machine import Machine, hypothetical, read_machine

_STYLES = {Status.PASS: "green", Status.WARN: "bold yellow", Status.FAIL: "bold red"}


class _GigaBytes(MemorySize):
    """As MemorySize; a bare number counts GiB, as memory is sold, and 0 is none."""

    name = "GB"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes."""
        text = str(value).strip()
        if isinstance(value, int) or not text.replace(".", "", 1).isdigit():
            return super().convert(value, param, ctx)
        return int(float(text) * (1 << 30))


@click.command(
    epilog="""\b
Examples:
  docmill doctor
  docmill doctor --batch latest
  docmill doctor --recommend --use-case education
  docmill doctor --recommend --cores 16 --ram 64 --vram 24 --out config.yaml
"""
)
@click.option("--batch", metavar="BATCH", help="Say instead why this batch was slow, failed or wrote badly.")
@click.option("--recommend", "wants_model", is_flag=True, help="Name a model and its settings instead of checking.")
@click.option(
    "--use-case", type=click.Choice([str(use) for use in UseCase]), default=str(UseCase.GENERAL), show_default=True,
    help="What the model is for.",
)  # fmt: skip
@click.option("--cores", type=click.IntRange(min=1), help="Recommend for so many physical cores instead.")
@click.option("--ram", type=_GigaBytes(), help="Recommend for so much memory (GiB) instead.")
@click.option("--vram", type=_GigaBytes(), multiple=True, help="For a GPU of so much (GiB); again for each, 0: none.")
@click.option("--disk", type=_GigaBytes(), help="Recommend for so much free disk (GiB) instead.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the recommended config.yaml here.")
@json_option
@pass_context
def doctor(
    context: CliContext,
    /,
    batch: str | None,
    wants_model: bool,  # noqa: FBT001
    use_case: str,
    out: Path | None,
    as_json: bool,  # noqa: FBT001
    **parts: Any,
) -> None:
    """Check the machine, what is installed, database, broker and workers; say what to do.

    Every line passes, warns or fails; with a failure the exit code is 1. Nothing is changed or created.
    `--batch` reads a batch's measurements and says what shows: high latency, memory, quality, processor.
    `--recommend` names a model for this machine (or the one described) with a config.yaml.
    """
    if batch is not None:
        if wants_model or out or any(parts.values()):
            raise click.UsageError("--batch goes alone")
        _diagnose(context, batch, as_json=as_json)
        return
    if wants_model:
        _recommend(context, _machine(context, parts), UseCase(use_case), out, as_json=as_json)
        return
    if out or any(parts.values()):
        raise click.UsageError("--out, --cores, --ram, --vram and --disk belong to --recommend")
    with waiting(context.console, "looking at the machine"):
        seen = run_checkup(context.settings, context.profile)
    findings = list(seen.findings)
    if as_json:
        facts = {name: asdict(getattr(seen, name)) for name in ("machine", "software", "services")}
        print_json({"status": worst(findings), "findings": [asdict(finding) for finding in findings], **facts})
    else:
        _show(findings)
    context.exit(1 if worst(findings) is Status.FAIL else 0)


def _diagnose(context: CliContext, batch: str, *, as_json: bool) -> None:
    backend = Backend(context.settings)
    batch_id = backend.batches.find(batch).id
    evidence, findings = diagnose_batch(backend.database, batch_id, context.settings.home)
    if as_json:
        facts = {name: value for name, value in asdict(evidence).items() if name not in ("texts", "plan")}
        shown = [asdict(finding) for finding in findings]
        print_json({"batch": batch_id, "status": worst(findings), "findings": shown, "evidence": facts})
    else:
        _show(findings)


def _show(findings: list[Finding]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for width in (4, 9, 14):
        table.add_column(min_width=width, no_wrap=True)
    table.add_column(overflow="fold")
    section = ""
    for finding in findings:
        shown = Text(finding.what)
        if finding.advice:
            shown.append(f"\n-> {finding.advice}", style="italic")
        status = Text(finding.status.upper(), style=_STYLES[finding.status])
        table.add_row(status, finding.section if finding.section != section else "", finding.check, shown)
        section = finding.section
    print_table(table)
    counts = {status: sum(finding.status is status for finding in findings) for status in Status}
    click.echo(
        f"\n{counts[Status.PASS]} passed, {counted(counts[Status.WARN], 'warning')}, "
        f"{counted(counts[Status.FAIL], 'failure')}"
    )


def _machine(context: CliContext, parts: dict[str, Any]) -> Machine:
    """This machine, or it with the parts that were named."""
    found = read_machine(context.settings.home)
    if not any(value not in (None, ()) for value in parts.values()):
        return found
    return hypothetical(
        found,
        cores=parts["cores"],
        memory_bytes=parts["ram"],
        vram_bytes=parts["vram"] or None,
        disk_bytes=parts["disk"],
    )


def _recommend(context: CliContext, machine: Machine, use_case: UseCase, out: Path | None, *, as_json: bool) -> None:
    if out is not None and out.exists():
        raise click.UsageError(f"{out} is there already and was left as it is; name another file with --out")
    found = recommend(machine, use_case)
    text = config_text(found, _in_words(machine))
    if out is not None:
        out.write_text(text, encoding="utf-8")
        context.console.print(f"wrote {out}", highlight=False, markup=False, soft_wrap=True)
    if as_json:
        print_json(_row(found) | {"config": text})
        return
    _show_standing(found)
    _show_choices(found)
    for remark in found.remarks:
        click.echo(f"- {remark}")
    if out is None:
        click.echo(f"\n{text}", nl=False)


def _in_words(machine: Machine) -> str:
    gpus = " and ".join(f"a GPU with {gib(gpu.total_bytes)}" for gpu in machine.gpus) or "no GPU"
    pretended = " (not this machine)" if machine.is_hypothetical else ""
    cores = counted(machine.cpu.engine_threads, "core")
    return f"{cores}, {gib(machine.memory.usable_bytes)} memory, {gpus}{pretended}"


def _show_standing(found: Recommendation) -> None:
    table = Table("", "has", "enough for", "the next tier takes", box=None, pad_edge=False)
    for part in found.standing.parts:
        table.add_row(part.name, part.has, str(part.tier or "below Basic"), part.next_needs)
    table.add_row(Text("together", style="bold"), "", Text(str(found.standing.tier or "below Basic"), style="bold"), "")
    print_table(table)
    click.echo()


def _show_choices(found: Recommendation) -> None:
    table = Table("model", "where", "window", "cache", "slots", "memory", "why", box=None, pad_edge=False)
    for column in table.columns[:6]:
        column.no_wrap = True
    for choice in (found.first, *found.alternatives):
        fit = choice.fit
        where = f"{fit.gpus} GPUs" if fit.gpus > 1 else str(fit.place)
        needed = gib_of(fit.needed_bytes, fit.available_bytes)
        table.add_row(
            choice.entry.name, f"{where}, {fit.engine}", f"{fit.window:,}", fit.cache_type.quantization,
            str(fit.slots) if fit.fits else "does not fit", needed, choice.why,
        )  # fmt: skip
    stdout_console().print(table)
    click.echo()


def _row(found: Recommendation) -> dict[str, Any]:
    return {
        "tier": found.standing.tier,
        "parts": [asdict(part) for part in found.standing.parts],
        "use_case": found.use_case,
        "first": _choice_row(found.first),
        "beside": [_choice_row(choice) for choice in found.alternatives],
        "remarks": list(found.remarks),
    }


def _choice_row(choice: Choice) -> dict[str, Any]:
    fit: Fit = choice.fit
    return {
        "model": choice.entry.name,
        "why": choice.why,
        "fits": fit.fits,
        "missing_bytes": fit.missing_bytes,
        "quantization": fit.cache_type.quantization,
        **asdict(fit),
    }
