"""`docmill try`: one prompt at several temperatures, the answers side by side."""

from __future__ import annotations

import sys
from typing import Any

import click
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from docmill.cli.context import CliContext, pass_context
from docmill.cli.display.output import print_json, stdout_console
from docmill.cli.display.spinner import waiting
from docmill.cli.model_download import ensure_model
from docmill.cli.options import engine_option, json_option, model_option, seed_option, temperature_type, top_p_option
from docmill.insight.temperature_trial import Answer, Question, TemperatureTrial, TrialResult
from docmill.producer.model_text import load_model_text
from docmill.settings.sampling_presets import PRESETS, preset_of

_MIN_COLUMN = 26  # narrower answers are printed below each other


class _Temperatures(click.ParamType[tuple[float, ...]]):
    """One number, or several separated by commas."""

    name = "number"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """The numbers, each from 0 to 5."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = [float(part) for part in str(value).split(",")]
        except ValueError:
            self.fail(f"{value!r} is neither a number nor several separated by commas", param, ctx)
        return tuple(temperature_type.convert(number, param, ctx) for number in numbers)


class _TakesSeveral(click.Command):
    """Lets an option take all numbers that follow it: `--temperature 0.2 0.7 1.0`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, repeated(args, "--temperature"))


def repeated(args: list[str], option: str) -> list[str]:
    """Turn `--option 1 2` into `--option 1 --option 2`, up to what is not a number; `--` ends the options."""
    out: list[str] = []
    takes = False
    for index, arg in enumerate(args):
        if arg == "--":
            return out + args[index:]
        first = bool(out) and out[-1] == option
        if takes and not first and _is_numbers(arg):
            out.append(option)
        out.append(arg)
        takes = arg == option or (takes and _is_numbers(arg))
    return out


@click.command(
    "try",
    cls=_TakesSeveral,
    epilog="""\b
Examples:
  docmill try "Why is the sky blue?" --temperature 0.2 0.7 1.0
  docmill try "Name a colour." --preset focused --preset creative --seed 7
  docmill try - --model qwen3-4b --max-tokens 400 < question.txt
""",
)
@click.argument("prompt")
@click.option(
    "--temperature", "temperatures", type=_Temperatures(), multiple=True, metavar="NUMBER...",
    help="An answer for each number, separated by spaces or commas; by default 0.2, 0.7 and 1.0.",
)  # fmt: skip
@click.option(
    "--preset", "presets", type=click.Choice(list(PRESETS)), multiple=True,
    help=f"{', '.join(f'{name} ({value})' for name, value in PRESETS.items())}; may be repeated.",
)  # fmt: skip
@model_option
@engine_option
@click.option("--system", metavar="TEXT", help="System prompt.")
@click.option(
    "--max-tokens", type=click.IntRange(min=1), default=200, show_default=True, help="Longest answer, in tokens."
)
@top_p_option
@seed_option
@json_option
@pass_context
def try_(
    context: CliContext,
    /,
    prompt: str,
    temperatures: tuple[tuple[float, ...], ...],
    presets: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Ask a model one PROMPT (- for standard input) at several temperatures.

    The model runs in this command, without broker, database or worker. Low temperatures prefer the likeliest tokens,
    high ones vary more; 0 always gives the same answer. The answers are generated in one batch, like jobs.
    """
    asked = tuple(number for group in temperatures for number in group) + tuple(PRESETS[name] for name in presets)
    given = {name: options[name] for name in ("top_p", "seed") if options[name] is not None}
    question = Question(
        prompt=sys.stdin.read() if prompt == "-" else prompt,
        system=options["system"],
        temperatures=tuple(dict.fromkeys(asked or PRESETS.values())),
        max_tokens=options["max_tokens"],
        sampling=context.settings.profile(context.profile).sampling | given,
    )
    if not question.prompt.strip():
        raise click.UsageError("the prompt is empty")
    trial = _run(context, question, options)
    if as_json:
        print_json(_row(trial, options["seed"]))
    else:
        _show(trial)
    context.exit(0 if all(answer.completion for answer in trial.answers) else 1)


def _run(context: CliContext, question: Question, options: dict[str, Any]) -> TrialResult:
    from docmill.cli.services.worker_options import WorkerFlags, engine_spec

    name = ensure_model(context, options["model"])
    flags = WorkerFlags(model=options["model"], engine=options["engine"], slots=len(question.temperatures))
    spec = engine_spec(context.settings, context.profile, flags)
    with TemperatureTrial(spec, load_model_text(name, context.settings.home), question) as trial:
        with waiting(context.console, f"loading {spec.model.name} on {spec.engine}"):
            trial.load()
        with waiting(context.console, f"writing {len(question.temperatures)} answers"):
            return trial.ask()


def _show(trial: TrialResult) -> None:
    console = stdout_console()
    loaded = f"{trial.facts.model} on {trial.facts.engine}, loaded in {trial.load_s:.1f} s"
    click.echo(f"{loaded}; the prompt is {trial.prompt_tokens:,} tokens\n")
    if console.width // len(trial.answers) < _MIN_COLUMN:
        for answer in trial.answers:
            console.print(Panel(_content(answer), title=_title(answer), title_align="left"))
        return
    table = Table(expand=True, show_lines=True)
    for answer in trial.answers:
        table.add_column(_title(answer), ratio=1, overflow="fold")
    table.add_row(*(_content(answer) for answer in trial.answers))
    console.print(table)


def _title(answer: Answer) -> str:
    preset = preset_of(answer.temperature)
    return f"temperature {answer.temperature:g}{f' ({preset})' if preset else ''}"


def _content(answer: Answer) -> Group:
    done = answer.completion
    if done is None:
        return Group(Text(f"failed: {answer.error}", style="bold red"))
    rate = f", {answer.tokens_per_s:,.0f} tokens/s" if answer.tokens_per_s else ""
    ended = "complete" if done.finish_reason == "stop" else "cut at --max-tokens"
    cost = f"{done.completion_tokens:,} tokens in {done.prefill_s + done.decode_s:.1f} s{rate}, {ended}"
    return Group(Text(done.text.strip()), Text(f"\n{cost}", style="dim"))


def _row(trial: TrialResult, seed: int | None) -> dict[str, Any]:
    facts = trial.facts
    return {
        "model": facts.model,
        "engine": facts.engine,
        "fingerprint": facts.fingerprint,
        "load_s": round(trial.load_s, 3),
        "prompt_tokens": trial.prompt_tokens,
        "seed": seed,
        "answers": [_answer_row(answer) for answer in trial.answers],
    }


def _answer_row(answer: Answer) -> dict[str, Any]:
    row: dict[str, Any] = {"temperature": answer.temperature, "preset": preset_of(answer.temperature)}
    done = answer.completion
    if done is None:
        return row | {"error": answer.error}
    return row | {
        "text": done.text,
        "finish_reason": str(done.finish_reason),
        "completion_tokens": done.completion_tokens,
        "prefill_s": round(done.prefill_s, 4),
        "decode_s": round(done.decode_s, 4),
        "tokens_per_s": None if answer.tokens_per_s is None else round(answer.tokens_per_s, 1),
        "beside": round(done.batch_size, 2),
    }


def _is_numbers(text: str) -> bool:
    try:
        return bool([float(part) for part in text.split(",")])
    except ValueError:
        return False
