"""`docmill`: the group of all commands, and the handling of errors."""

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
    "tail": "Show the text of a job or a document while it is generated.",
    "results": "Print or write a batch's results.",
    "report": "Write a report about a batch's speed, failures and cost.",
    "export": "Write a batch's documents, jobs or attempts as JSON lines, CSV or Parquet.",
    "query": "Query the database with SQL.",
    "trace": "Show which parts of a document its summary comes from.",
    "cancel": "Stop a batch.",
    "pause": "Pause a batch or a worker.",
    "resume": "Resume a paused batch or worker.",
    "retry": "Queue a batch's failed jobs again.",
    "chunks": "Show how documents would be cut, without submitting.",
    "tokens": "Count the tokens of a text with the model's tokenizer.",
    "models": "List, download and describe models.",
    "plan": "Compute whether a model fits a GPU, and how many jobs run at once.",
    "doctor": "Check this machine, diagnose a batch, recommend a model.",
    "health": "Check that database, broker and workers respond.",
    "try": "Compare the answers to a prompt at several temperatures.",
    "tune": "Find the fastest engine settings by measurement.",
    "config": "Show all settings and where each value was set.",
    "db": "Create or migrate the database.",
    "worker": "Run jobs on an engine (a service of a cluster).",
    "dispatcher": "Fill the queues and plan merges (a service of a cluster).",
    "flower": "Show jobs in the browser.",
    "demo": "Summarize part of Python's language reference.",
}
_MODULES = {"resume": "pause", "retry": "cancel", "try": "try_"}  # the others have the name of the command


class _Commands(click.Group):
    """Imports a command only when it is called, so that `docmill --help` is fast and `status` loads no engine."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            near = get_close_matches(cmd_name, _COMMANDS, n=1)
            if near and not ctx.resilient_parsing:
                ctx.fail(f"No such command {cmd_name!r}; did you mean {near[0]}?")
            return None
        module = importlib.import_module(f"docmill.cli.commands.{_MODULES.get(cmd_name, cmd_name)}")
        command: click.Command = getattr(module, f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            if not _is_output_closed():
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


def _is_output_closed() -> bool:
    """Has the reader of standard output gone, as in `docmill chunks novel.txt | head`?"""
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
  docmill demo                          summarize documents that come with Python
  docmill run reports/ --out summaries/ summarize your own documents
  docmill COMMAND --help                describe a command, with examples""",
)
@click.version_option(package_name="docmill")
@click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False),
    help="Configuration file; by default $DOCMILL_CONFIG or ./config.yaml.",
)  # fmt: skip
@click.option("--profile", metavar="NAME", help="A *_llm section of the configuration; by default llm.")
@click.option(
    "--home", type=click.Path(path_type=Path, file_okay=False),
    help="Directory of the database, models, caches and logs; by default $DOCMILL_HOME or ~/.local/share/docmill.",
)  # fmt: skip
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Log format of services; by default text.")
@click.pass_context
def cli(
    ctx: click.Context,
    config: Path | None,
    profile: str | None,
    home: Path | None,
    log_format: str | None,
) -> None:
    """Batch processing of long documents with local language models."""
    from docmill.cli.context import CliContext

    if log_format is not None:
        os.environ["DOCMILL_LOG_FORMAT"] = log_format  # for child processes, too
    ctx.obj = CliContext(config=config, profile=profile, home=home)


def main() -> NoReturn:
    """The entry point. Errors are printed as one sentence and become exit codes.

    1: failure; 2: wrong use; 70: internal error; 130: interrupted.
    """
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # keeps the current directory off the path of children, pip too
    try:
        code = cli.main(prog_name="docmill", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(130)
    except click.UsageError as error:
        error.show()
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001 - every error becomes a message and an exit code
        if "--debug" in sys.argv:
            traceback.print_exc()
        sys.exit(_explain(error))
    sys.exit(code if isinstance(code, int) else 0)


def _explain(error: Exception) -> int:
    """Print what is wrong in one sentence; returns the exit code."""
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
