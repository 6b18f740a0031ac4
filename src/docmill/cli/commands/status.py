"""`docmill status`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from docmill.cli.context import CliContext, pass_context
from docmill.cli.display.output import new_table, print_json, print_pairs, print_table
from docmill.cli.options import json_option, optional_batch_argument
from docmill.formatting import duration

if TYPE_CHECKING:
    from docmill.storage.reads.batch_status import BatchStatus

_MEASURED = (
    "prompt_tokens", "cached_tokens", "completion_tokens", "tokens_per_s", "elapsed_s", "eta_s", "created_at", "error",
)  # fmt: skip


@click.command(
    epilog="""\b
Examples:
  docmill status
  docmill status latest --watch
  docmill status 261124-k7q2mx --json | jq .eta_s
"""
)
@optional_batch_argument
@click.option("--watch", is_flag=True, help="Follow the batch until it has ended; without BATCH all, until q.")
@json_option
@pass_context
def status(context: CliContext, batch: str | None, watch: bool, as_json: bool) -> None:
    """Show all batches, or one (by its id, the beginning of its id, or `latest`): states, tokens, rate, time left.

    With --watch, follows batches, workers and queues on the terminal (q quits). Elsewhere it prints a line at most
    every five seconds until the batch, by default the latest, has ended.
    """
    from docmill.cli.display import watch as display

    backend, is_live = context.backend, watch and sys.stdout.isatty()
    if batch is None and is_live:
        display.watch(backend, None)
        return
    if batch is None and not watch:
        _print_all(context, as_json=as_json)
        return
    batch_id = backend.batches.find(batch or "latest").id
    current = backend.reports.batch(batch_id)
    if watch and not current.state.is_terminal:
        if is_live:
            display.watch(backend, batch_id)
        else:
            display.watch_as_lines(backend, batch_id, sys.stderr if as_json else sys.stdout)
        current = backend.reports.batch(batch_id)
    if as_json:
        print_json(as_record(current))
    else:
        _print_one(context, current)


def as_record(status: BatchStatus) -> dict[str, Any]:
    """A status as a JSON object; times are Unix seconds, durations seconds."""
    return {
        "batch": status.id,
        "state": str(status.state),
        "model": status.model,
        "task": status.task,
        "metadata": dict(status.metadata),
        "documents": {name: getattr(status, f"documents_{name}") for name in ("total", "open", "failed")},
        "jobs": {"total": status.jobs_total} | {str(state): n for state, n in status.jobs_by_state.items()},
    } | {name: getattr(status, name) for name in _MEASURED}


def _print_all(context: CliContext, *, as_json: bool) -> None:
    batches = context.backend.reports.batches()
    if as_json:
        print_json([as_record(status) for status in batches])
        return
    if not batches:
        click.echo("no batches yet; `docmill submit` makes one", err=True)
        return
    table = new_table("batch", "state", "task", "model", right=("documents", "jobs", "failed", "tokens/s", "left"))
    for status in batches:
        table.add_row(
            status.id,
            str(status.state),
            status.task,
            status.model,
            f"{status.documents_ended}/{status.documents_total}",
            f"{status.jobs_ended}/{status.jobs_total}",
            str(status.jobs_failed),
            f"{status.tokens_per_s:,.0f}" if status.tokens_per_s else "",
            duration(status.eta_s) if status.eta_s is not None else "",
        )
    print_table(table)


def _print_one(context: CliContext, status: BatchStatus) -> None:
    reports = context.backend.reports
    left = f", about {duration(status.eta_s)} left" if status.eta_s is not None else ""
    lines = [
        ("batch", f"{status.id}  {status.state}"),
        ("task, model", f"{status.task}, {status.model}"),
        ("documents", f"{status.documents_total} ({status.documents_open} open, {status.documents_failed} failed)"),
        ("jobs", ", ".join(f"{n:,} {state}" for state, n in status.jobs_by_state.items() if n) or "none"),
        ("tokens", f"{status.prompt_tokens:,} read, {status.completion_tokens:,} written"),
        ("tokens/s", f"{status.tokens_per_s:,.0f}" if status.tokens_per_s else "not measured yet"),
        ("time", f"{duration(status.elapsed_s)}{left}"),
    ]
    if status.metadata:
        lines.append(("metadata", ", ".join(f"{key}={value}" for key, value in status.metadata.items())))
    if status.error:
        lines.append(("error", status.error))
    lines += [("failed", f"{r.count}: {r.kind}: {r.example}") for r in reports.failures(status.id)]
    print_pairs(lines, width=12)
    if not status.state.is_terminal and all(worker.model != status.model for worker in reports.workers()):
        click.echo(
            f"no worker that serves {status.model} was seen in the last minute; start one with `docmill up` or "
            "`docmill worker`",
            err=True,
        )
