"""`docmill`: the group of all commands, and what becomes of errors."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from difflib import get_close_matches
from keyword import iskeyword
from pathlib import Path
from typing import NoReturn

import click

from docmill.errors import DocmillError

INTERNAL_ERROR = 70  # EX_SOFTWARE of sysexits(3)

_COMMANDS = {
    "run": "Summarize documents on this machine, everything included.",
    "up": "Run broker, dispatcher and worker in the foreground.",
    "submit": "Cut documents into jobs and queue them.",
    "status": "Show batches: states, tokens, rate, time left.",
    "tail": "Show what a job or a document's jobs write, as they write it.",
    "results": "Print or write a batch's results.",
    "report": "A batch's speed, failures and cost as one HTML file.",
    "export": "Write a batch's documents, jobs or attempts as JSON lines, CSV or Parquet.",
    "query": "Ask the database in SQL: a statement that reads.",
    "trace": "Show which parts of a document its summary comes from.",
    "cancel": "Stop a batch.",
    "pause": "Start no further jobs of a batch, or on a worker.",
    "resume": "Go on with a paused batch or worker.",
    "retry": "Queue a batch's failed jobs again.",
    "chunks": "Show how documents would be cut, without submitting.",
    "tokens": "Count a text's tokens by the model's own tokenizer.",
    "models": "The catalogue, and the models that are here.",
    "plan": "Whether a model fits a GPU, and how many jobs at once.",
    "doctor": "What is right and wrong here, and which model suits.",
    "health": "Whether database, broker and worker answer (a health check).",
    "try": "One prompt at several temperatures, side by side.",
    "tune": "Which threads, batch size, cache and chunks are fastest here.",
    "config": "The effective settings and where each was set.",
    "db": "Bring the database to this version's schema.",
    "worker": "Run jobs on an engine (a cluster's service).",
    "dispatcher": "Keep queues filled, plan merges (a cluster's service).",
    "flower": "Watch jobs in the browser.",
    "demo": "Summarize Python's own reference, and show what came of it.",
}
_MODULES = {"resume": "docmill.cli.commands.pause", "try": "docmill.cli.commands.try_"}


class _Commands(click.Group):
    """Imports a command when it is called: `docmill --help` is instant, `docmill status` loads no engine."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            near = get_close_matches(cmd_name, _COMMANDS, n=1)
            if near and not ctx.resilient_parsing:
                ctx.fail(f"No such command {cmd_name!r}; did you mean {near[0]}?")
            return None
        module = importlib.import_module(_MODULES.get(cmd_name, f"docmill.cli.commands.{cmd_name}"))
        command: click.Command = getattr(module, f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            if not _nobody_reads():
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more to say, nothing went wrong
            return 0

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


def _nobody_reads() -> bool:
    """Whether standard output is a pipe whose reader has left, as in `docmill chunks novel.txt | head`."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return True
    return False


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  docmill demo                          what it does, on documents you have
  docmill run reports/ --out summaries/ your own, on this machine
  docmill COMMAND --help                more, with examples""",
)
@click.version_option(package_name="docmill")
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="Instead of ./config.yaml.")
@click.option("--profile", metavar="NAME", help="A *_llm section of the configuration; llm by default.")
@click.option(
    "--home", type=click.Path(path_type=Path, file_okay=False), help="Where data, models and caches are kept."
)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), help="How services write their log; text by default."
)
@click.pass_context
def cli(
    ctx: click.Context,
    config: Path | None,
    profile: str | None,
    home: Path | None,
    debug: bool,  # noqa: FBT001
    log_format: str | None,
) -> None:
    """Bulk work by local language models over piles of long documents."""
    from docmill.cli.context import CliContext

    if log_format is not None:
        os.environ["DOCMILL_LOG_FORMAT"] = log_format  # services that this one starts shall do the same
    ctx.obj = CliContext(config=config, profile=profile, home=home, debug=debug)


def main() -> NoReturn:
    """The entry point: errors become one sentence and an exit code.

    1 for failure, 2 for wrong use, 70 for what docmill does not know.
    """
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # engine processes do not import files of the current directory
    try:
        code = cli.main(prog_name="docmill", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(130)
    except click.UsageError as error:
        error.show()
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is said and becomes an exit code
        if "--debug" in sys.argv:
            traceback.print_exc()
        sys.exit(_explain(error))
    sys.exit(code if isinstance(code, int) else 0)


def _explain(error: Exception) -> int:
    """Say what is wrong in one sentence; the exit code."""
    if isinstance(error, click.ClickException):
        click.echo(f"docmill: {error.format_message()}", err=True)
        return error.exit_code
    if isinstance(error, DocmillError):
        click.echo(f"docmill: {error}", err=True)
        return error.exit_code
    if isinstance(error, OSError) and error.strerror:
        click.echo(f"docmill: {f'{error.filename}: ' if error.filename else ''}{error.strerror}", err=True)
        return 1
    click.echo(
        f"docmill: internal error, please report it: {type(error).__name__}: {error} "
        "(run the command as `docmill --debug ...` to see the traceback)",
        err=True,
    )
    return INTERNAL_ERROR
