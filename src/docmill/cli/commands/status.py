"""`docmill status`."""

from __future__ import annotations

import sys
from typing import Any

import click
from rich.table import Table

from docmill.cli.context import CliContext, pass_context
from docmill.cli.display.output import print_json, print_table
from docmill.cli.display.watch import watch as watch_live
from docmill.cli.display.watch import watch_plainly
from docmill.cli.options import json_option
from docmill.formatting import duration
from docmill.producer.composition import Backend
from docmill.storage.reads.batch_status import BatchStatus
from docmill.storage.states import JobState


@click.command(
    epilog="""\b
Examples:
  docmill status
  docmill status latest --watch
  docmill status 261124-k7q2mx --json | jq .eta_s
"""
)
@click.argument("batch", required=False)
@click.option("--watch", is_flag=True, help="Follow the batch until it has ended; without BATCH: all, until q.")
@json_option
@pass_context
def status(context: CliContext, batch: str | None, watch: bool, as_json: bool) -> None:  # noqa: FBT001
    """Show batches, or one batch (its id, the beginning of it, or `latest`): states, tokens, rate, time left.

    With --watch a view of batches, workers and queues that follows them (q quits); where the output is no terminal,
    a line at most every five seconds until the batch, or the latest, has ended.
    """
    backend = Backend(context.settings)
    is_live = watch and sys.stdout.isatty()
    if batch is None and (is_live or not watch):
        if is_live:
            watch_live(backend, None)
        else:
            _print_all(backend, as_json=as_json)
        return
    batch_id = backend.batches.find(batch or "latest").id
    if watch and not backend.reports.batch(batch_id).state.is_terminal:
        if is_live:
            watch_live(backend, batch_id)
        else:
            watch_plainly(backend, batch_id, sys.stderr if as_json else sys.stdout)
    current = backend.reports.batch(batch_id)
    if as_json:
        print_json(as_record(current))
    else:
        _print_one(backend, current)


def as_record(status: BatchStatus) -> dict[str, Any]:
    """A status as a JSON object; times are Unix seconds, durations seconds."""
    return {
        "batch": status.id,
        "state": str(status.state),
        "model": status.model,
        "task": status.task,
        "metadata": dict(status.metadata),
        "documents": {
            "total": status.documents_total,
            "open": status.documents_open,
            "failed": status.documents_failed,
        },
        "jobs": {"total": status.jobs_total} | {str(state): n for state, n in status.jobs_by_state.items()},
        "prompt_tokens": status.prompt_tokens,
        "cached_tokens": status.cached_tokens,
        "completion_tokens": status.completion_tokens,
        "tokens_per_s": status.tokens_per_s,
        "elapsed_s": status.elapsed_s,
        "eta_s": status.eta_s,
        "created_at": status.created_at,
        "error": status.error,
    }


def _print_all(backend: Backend, *, as_json: bool) -> None:
    batches = backend.reports.batches()
    if as_json:
        print_json([as_record(status) for status in batches])
        return
    if not batches:
        click.echo("no batches yet; `docmill submit` makes one", err=True)
        return
    table = Table("batch", "state", "task", "model", box=None, pad_edge=False)
    for heading in ("documents", "jobs", "failed", "tokens/s", "left"):
        table.add_column(heading, justify="right")
    for status in batches:
        ended = sum(n for state, n in status.jobs_by_state.items() if state.is_terminal)
        table.add_row(
            status.id,
            str(status.state),
            status.task,
            status.model,
            f"{status.documents_total - status.documents_open}/{status.documents_total}",
            f"{ended}/{status.jobs_total}",
            str(status.jobs_by_state.get(JobState.FAILED, 0)),
            f"{status.tokens_per_s:,.0f}" if status.tokens_per_s else "",
            duration(status.eta_s) if status.eta_s is not None else "",
        )
    print_table(table)


def _print_one(backend: Backend, status: BatchStatus) -> None:
    lines = [
        ("batch", f"{status.id}  {status.state}"),
        ("task, model", f"{status.task}, {status.model}"),
        ("documents", f"{status.documents_total} ({status.documents_open} open, {status.documents_failed} failed)"),
        ("jobs", ", ".join(f"{n:,} {state}" for state, n in status.jobs_by_state.items() if n) or "none"),
        ("tokens", f"{status.prompt_tokens:,} read, {status.completion_tokens:,} written"),
        ("tokens/s", f"{status.tokens_per_s:,.0f}" if status.tokens_per_s else "not measured yet"),
        ("time", f"{duration(status.elapsed_s)}" + (
            f", about {duration(status.eta_s)} left" if status.eta_s is not None else "")),
    ]  # fmt: skip
    if status.metadata:
        lines.append(("metadata", ", ".join(f"{key}={value}" for key, value in status.metadata.items())))
    if status.error:
        lines.append(("error", status.error))
    for name, value in lines:
        click.echo(f"{name:12} {value}")
    for reason in backend.reports.failures(status.id):
        click.echo(f"{'failed':12} {reason.count}: {reason.kind}: {reason.example}")
    if not status.state.is_terminal and all(worker.model != status.model for worker in backend.reports.workers()):
        click.echo(
            f"no worker that serves {status.model} has been seen lately; `docmill up` or `docmill worker` start one",
            err=True,
        )
