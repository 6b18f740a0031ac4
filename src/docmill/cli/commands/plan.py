"""`docmill plan`: does a model fit a GPU, how many jobs run at once, and what to change if it does not fit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from docmill.catalogue.families import require_exllamav2
from docmill.catalogue.find_model import find_model
from docmill.catalogue.local_model import ModelKind
from docmill.cli.completion import complete_models
from docmill.cli.context import CliContext, pass_context
from docmill.cli.display.output import new_table, print_json, print_pairs, print_table
from docmill.cli.options import json_option, memory_size
from docmill.formatting import precise_gib
from docmill.settings.defaults import DEFAULT_SLOTS, Settings
from docmill.sizing.gpu_devices import NoGpu, read_gpus
from docmill.sizing.gpu_memory import CacheType, DeviceUse
from docmill.sizing.gpu_plan import GpuPlan, plan_gpu
from docmill.sizing.model_shape import ModelShape, read_model_shape

_FORMATS = ("exl2", "exl3", "gptq", "fp16")


@click.command(
    epilog="""\b
Examples:
  docmill plan --model models/Mistral-7B-exl2 --vram 12GiB
  docmill --profile advanced_llm plan --gpus
  docmill plan --model models/Llama-70B-exl2 --vram 24GiB --vram 24GiB --split --cache q4
"""
)
@click.option(
    "--model",
    metavar="DIR",
    help="A model directory or a pulled model; by default the profile's.",
    shell_complete=complete_models,
)
@click.option("--vram", type=memory_size, multiple=True, help="Free memory of a GPU, such as 24GiB; once per GPU.")
@click.option("--gpus", is_flag=True, help="Use the GPUs of this machine; the default without --vram.")
@click.option("--split", is_flag=True, help="Split one model over all GPUs, instead of one worker on each.")
@click.option("--window", type=click.IntRange(min=1), help="Tokens of prompt and output; by default the profile's.")
@click.option(
    "--cache",
    type=click.Choice([str(t) for t in CacheType]),
    help="By default from optimization.quantization.",
)
@click.option("--slots", type=click.IntRange(min=1), help="Jobs wanted at once; by default the worker's.")
@json_option
@pass_context
def plan(
    context: CliContext,
    model: str | None,
    vram: tuple[int, ...],
    gpus: bool,
    split: bool,
    window: int | None,
    cache: str | None,
    slots: int | None,
    as_json: bool,
) -> None:
    """Compute from a model's files whether it fits a GPU, and how many jobs then run at once.

    For model directories (EXL2, EXL3, safetensors) on the engine exllamav2. Needs neither torch nor a GPU. Exit
    code 1 if not even one job fits.
    """
    if vram and gpus:
        raise click.UsageError("give either --gpus or --vram: both say how much memory the GPUs have")
    settings = context.settings
    profile = settings.profile(context.profile)
    directory = _model_directory(model or profile.model, settings)
    shape = read_model_shape(directory)
    _require_runnable(directory, shape)
    devices = _devices(vram)
    groups = [devices] if split else [{name: size} for name, size in devices.items()]
    plans = [
        plan_gpu(
            shape,
            tuple(group.values()),
            window or profile.context_window or shape.max_position,
            CacheType(cache) if cache else CacheType.from_quantization(profile.optimization.quantization),
            slots or settings.worker.slots or profile.optimization.batch_size or DEFAULT_SLOTS,
        )
        for group in groups
    ]
    if as_json:
        print_json({"model": _model_row(directory, shape), "plans": [_row(p) for p in plans]})
    else:
        _show(directory, shape, list(zip(groups, plans, strict=True)))
    context.exit(0 if all(p.fits for p in plans) else 1)


def _model_directory(name: str, settings: Settings) -> Path:
    path = Path(name).expanduser()
    if (path / "config.json").is_file():
        return path.resolve()
    model = find_model(name, settings.home)
    if model.kind is not ModelKind.DIRECTORY:
        raise click.UsageError(
            f"{model.name} is a GGUF file ({model.path}), which llamacpp and openvino run in main memory; "
            "this command is for model directories on a GPU: give one with --model (`docmill models pull NAME --exl2`)"
        )
    return model.path


def _require_runnable(directory: Path, shape: ModelShape) -> None:
    if shape.weights_format not in _FORMATS:
        raise click.UsageError(
            f"{directory} holds {shape.weights_format} weights, which neither exllamav2 nor exllamav3 loads; "
            f"use one of {', '.join(_FORMATS)}"
        )
    if shape.weights_format != "exl3":
        require_exllamav2(shape.architecture)


def _devices(vram: tuple[int, ...]) -> dict[str, int]:
    """The names of the GPUs, and the free bytes of each."""
    if vram:
        return {f"GPU {index}": size for index, size in enumerate(vram)}
    try:
        found = read_gpus()
    except NoGpu as error:
        raise click.UsageError(f"{error}; give the GPU's free memory, for example --vram 24GiB") from None
    return {f"GPU {gpu.index}, {gpu.name}": gpu.free_bytes for gpu in found}


def _model_row(directory: Path, shape: ModelShape) -> dict[str, Any]:
    return {
        "path": str(directory),
        "architecture": shape.architecture,
        "weights_format": shape.weights_format,
        "bits_per_weight": round(shape.bits_per_weight, 2),
        "context_window": shape.max_position,
        "weights_bytes": shape.weights_bytes,
        "embedding_bytes": shape.embedding_bytes,
        "cache_bytes_per_token": {str(t): t.bytes_per_token(shape) for t in CacheType},
        "unpacked_bytes_per_token": CacheType.Q8.unpacked_bytes(shape),
    }


def _row(plan: GpuPlan) -> dict[str, Any]:
    names = (
        "window", "cache_type", "fits", "missing_bytes", "slots", "slots_wanted", "cache_tokens", "most_cache_tokens",
        "max_input_len", "weights_bytes",
    )  # fmt: skip
    row = {name: getattr(plan, name) for name in names}
    row["devices"] = [asdict(d) | {"used_bytes": d.used_bytes, "free_bytes": d.free_bytes} for d in plan.devices]
    row["advice"] = [{"change": a.change, "sentence": a.sentence, "plan": _row(a.plan)} for a in plan.advice]
    return row


def _show(directory: Path, shape: ModelShape, plans: list[tuple[Iterable[str], GpuPlan]]) -> None:
    first = plans[0][1]
    unpacked = f" + {first.unpacked_bytes_per_token:,} once per GPU" if first.unpacked_bytes_per_token else ""
    weights = f"{shape.weights_format}, {shape.bits_per_weight:.2f} bits per weight"
    on_gpu, in_memory = precise_gib(shape.weights_bytes), precise_gib(shape.embedding_bytes)
    lines = [
        ("model", f"{directory} ({shape.architecture}, {weights})"),
        ("weights", f"{on_gpu}, and {in_memory} in main memory"),
        ("window", f"{first.window:,} tokens of at most {shape.max_position:,}"),
        ("cache", f"{first.cache_type}, {first.cache_bytes_per_token:,} bytes per token{unpacked}"),
    ]
    print_pairs(lines, width=8)
    for names, plan in plans:
        click.echo()
        _print_devices(names, plan.devices)
        click.echo(_verdict(plan))
        for advice in plan.advice:
            click.echo(f"  {advice.sentence}")


def _print_devices(names: Iterable[str], devices: tuple[DeviceUse, ...]) -> None:
    parts = ("weights", "cache", "scratch", "tables", "activations", "reserve")
    table = new_table("", right=("free", *parts, "left"))
    for name, device in zip(names, devices, strict=False):
        sizes = (device.vram_bytes, *(getattr(device, f"{part}_bytes") for part in parts), device.free_bytes)
        table.add_row(name, *(precise_gib(size) for size in sizes))
    print_table(table)


def _verdict(plan: GpuPlan) -> str:
    if not plan.fits:
        verdict = f"does not fit: {precise_gib(plan.missing_bytes)} are missing for one job"
    else:
        jobs = f"{plan.slots} of {plan.slots_wanted} jobs" if plan.slots < plan.slots_wanted else f"{plan.slots} jobs"
        verdict = (
            f"fits: {jobs} at once, a cache of {plan.cache_tokens:,} tokens (at most {plan.most_cache_tokens:,}), "
            f"prompts read in chunks of {plan.max_input_len:,}"
        )
    return f"{verdict}; options:" if plan.advice else verdict
