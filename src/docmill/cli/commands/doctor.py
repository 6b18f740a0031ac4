"""`docmill doctor`: checks this machine, diagnoses a batch, and recommends a model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from docmill.cli.completion import complete_batches
from docmill.cli.context import CliContext, pass_context
from docmill.cli.display.output import new_table, print_json, print_table
from docmill.cli.display.spinner import waiting
from docmill.cli.options import Parsed, json_option, require_new_file
from docmill.formatting import counted, gib, gib_of, parse_size
from docmill.insight.advice.config_text import config_text
from docmill.insight.advice.recommend import Choice, Recommendation, UseCase, recommend
from docmill.insight.checkup.run_checkup import run_checkup
from docmill.insight.diagnosis.run_diagnosis import diagnose_batch
from docmill.insight.findings import Finding, Status, worst
from docmill.sizing.catalogue_fit import Fit
from docmill.sizing.machine import Machine, hypothetical, read_machine

_STYLES = {Status.PASS: "green", Status.WARN: "bold yellow", Status.FAIL: "bold red"}


def _gigabytes(text: str) -> int:
    """The bytes of a size; a number without a unit counts GiB and may be 0. Raises ValueError."""
    number = text.strip()
    return int(float(number) * (1 << 30)) if number.replace(".", "", 1).isdigit() else parse_size(text)


_size = Parsed("GIB", _gigabytes)


@click.command(
    epilog="""\b
Examples:
  docmill doctor
  docmill doctor --batch latest
  docmill doctor --recommend --use-case education
  docmill doctor --recommend --cores 16 --ram 64 --vram 24 --out config.yaml
"""
)
@click.option(
    "--batch",
    metavar="BATCH",
    shell_complete=complete_batches,
    help="Diagnose why this batch was slow, failed or wrote poor text.",
)
@click.option("--recommend", "wants_model", is_flag=True, help="Recommend a model and its settings instead.")
@click.option(
    "--use-case", type=click.Choice([str(use) for use in UseCase]), default=str(UseCase.GENERAL), show_default=True,
    help="Purpose of the model.",
)  # fmt: skip
@click.option("--cores", type=click.IntRange(min=1), help="Recommend for this number of physical cores.")
@click.option("--ram", "memory_bytes", type=_size, help="Recommend for this much memory.")
@click.option(
    "--vram", "vram_bytes", type=_size, multiple=True,
    help="Recommend for a GPU with this memory; once per GPU, 0 for none.",
)  # fmt: skip
@click.option("--disk", "disk_bytes", type=_size, help="Recommend for this much free disk space.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the recommended config.yaml here.")
@json_option
@pass_context
def doctor(
    context: CliContext,
    /,
    batch: str | None,
    wants_model: bool,
    use_case: str,
    out: Path | None,
    as_json: bool,
    **hardware: Any,
) -> None:
    """Check the machine, the installation, database, broker and workers, and say what to do.

    Each check passes, warns or fails; exit code 1 if one fails. Nothing is changed or created.
    `--batch` diagnoses a batch from its measurements: latency, memory, quality, processor.
    `--recommend` recommends a model for this machine (or the one described) and prints a config.yaml.
    """
    parts = {name: value for name, value in hardware.items() if value not in (None, ())}
    if batch is not None:
        if wants_model or out or parts:
            raise click.UsageError("--batch cannot be combined with other options than --json")
        _diagnose(context, batch, as_json=as_json)
        return
    if wants_model:
        machine = read_machine(context.settings.home)
        machine = hypothetical(machine, **parts) if parts else machine
        _recommend(context, machine, UseCase(use_case), out, as_json=as_json)
        return
    if out or parts:
        raise click.UsageError("--out, --cores, --ram, --vram and --disk need --recommend")
    with waiting(context.console, "checking the machine"):
        seen = run_checkup(context.settings, context.profile)
    findings = list(seen.findings)
    if as_json:
        facts = {name: asdict(getattr(seen, name)) for name in ("machine", "software", "services")}
        print_json({"status": worst(findings), "findings": [asdict(finding) for finding in findings], **facts})
    else:
        _show(findings)
    context.exit(1 if worst(findings) is Status.FAIL else 0)


def _diagnose(context: CliContext, batch: str, *, as_json: bool) -> None:
    backend = context.backend
    batch_id = backend.batches.find(batch).id
    evidence, findings = diagnose_batch(backend.database, batch_id, context.settings.home)
    if as_json:
        facts = {name: value for name, value in asdict(evidence).items() if name not in ("texts", "plan")}
        shown = [asdict(finding) for finding in findings]
        print_json({"batch": batch_id, "status": worst(findings), "findings": shown, "evidence": facts})
    else:
        _show(findings)


def _show(findings: list[Finding]) -> None:
    table = new_table(show_header=False)
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


def _recommend(context: CliContext, machine: Machine, use_case: UseCase, out: Path | None, *, as_json: bool) -> None:
    require_new_file(out)
    found = recommend(machine, use_case)
    text = config_text(found, _description(machine))
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


def _description(machine: Machine) -> str:
    gpus = " and ".join(f"a GPU with {gib(gpu.total_bytes)}" for gpu in machine.gpus) or "no GPU"
    note = " (not this machine)" if machine.is_pretended else ""
    cores = counted(machine.cpu.engine_threads, "core")
    return f"{cores}, {gib(machine.memory.usable_bytes)} memory, {gpus}{note}"


def _show_standing(found: Recommendation) -> None:
    table = new_table("", "has", "enough for", "the next tier needs")
    for part in found.standing.parts:
        table.add_row(part.name, part.has, str(part.tier or "below Basic"), part.next_needs)
    table.add_row(Text("together", style="bold"), "", Text(str(found.standing.tier or "below Basic"), style="bold"), "")
    print_table(table)
    click.echo()


def _show_choices(found: Recommendation) -> None:
    table = new_table("model", "where", "window", "cache", "slots", "memory", "why")
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
    print_table(table)
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
