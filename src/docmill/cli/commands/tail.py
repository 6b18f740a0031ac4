"""`docmill tail`: text while it is written."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from docmill.cli.context import CliContext, pass_context
from docmill.cli.options import batch_option
from docmill.storage.states import JobState

if TYPE_CHECKING:
    from docmill.broker.tail_channel import JobTextReader, TailChannel
    from docmill.storage.reads.tailed_jobs import TailedJob, TailedJobs

_POLL_S = 0.5
_JOB = re.compile(r"(?:[\w-]+\.)?(\d+)(?:-\d+)?")  # 42, or its name in Flower: 261124-k7q2mx.42-1


@click.command(
    epilog="""\b
Examples:
  docmill tail 42
  docmill tail novel.txt
  docmill tail novel.txt --batch 261124-k7q2mx
"""
)
@click.argument("what", metavar="JOB|DOCUMENT")
@batch_option
@pass_context
def tail(context: CliContext, what: str, batch: str | None) -> None:
    """Show tokens as they are generated, of a job (its id, or its name in Flower) or of a document's jobs in turn.

    A document is followed to its end: its open jobs one after the other, then those of its merge levels. The text
    goes to standard output, headings and messages to standard error.
    """
    from docmill.broker.tail_channel import TailChannel
    from docmill.cli.services.connections import broker_url
    from docmill.storage.reads.tailed_jobs import TailedJobs

    tailed = TailedJobs(context.backend.database)
    channel = TailChannel(broker_url(context.settings))
    job = None if batch else _JOB.fullmatch(what)
    if job is not None:
        jobs = iter([tailed.job(int(job[1])).id])
    else:
        batch_id = context.backend.batches.find(batch or "latest").id
        jobs = _open_jobs(tailed, tailed.document(batch_id, what))
    try:
        states = [_show(channel, tailed, job_id) for job_id in jobs]
    finally:
        channel.close()
    if any(state is not JobState.SUCCEEDED for state in states):
        context.exit(1)


def _open_jobs(tailed: TailedJobs, document_id: int) -> Iterator[int]:
    """The document's open jobs, including those that are planned later, until the document has ended."""
    seen = {job_id for job_id, state in tailed.jobs(document_id).items() if state.is_terminal}
    while True:
        has_ended = tailed.has_ended(document_id)
        new = [job_id for job_id in tailed.jobs(document_id) if job_id not in seen]
        if new:
            seen.add(new[0])
            yield new[0]
        elif has_ended:
            return
        else:
            time.sleep(_POLL_S)


def _show(channel: TailChannel, tailed: TailedJobs, job_id: int) -> JobState:
    """Show a job's text until the job has ended; its final state."""
    with channel.read(job_id) as reader:
        job = tailed.job(job_id)
        owner = f" {job.owner}" if job.owner else ""
        _print_message(f"{job.document}, level {job.level}, {job.position}: job {job.id}, {job.state}{owner}")
        while not job.state.is_terminal:
            _print_new_text(reader)
            job = tailed.job(job_id)
        _print_rest(job, reader.text)
    if job.error:
        _print_message(f"{job.state}: {job.error_kind}: {job.error}")
    elif job.state is not JobState.SUCCEEDED:
        _print_message(str(job.state))
    return job.state


def _print_new_text(reader: JobTextReader) -> None:
    """Print what arrives within half a second."""
    until = time.monotonic() + _POLL_S
    while (left_s := until - time.monotonic()) > 0:
        attempt, text = reader.epoch, reader.text
        new = reader.new_text(left_s)
        if text and reader.epoch != attempt:
            click.echo()
            _print_message(f"attempt {reader.epoch} starts over")
        if new:
            click.echo(new, nl=False)


def _print_rest(job: TailedJob, shown: str) -> None:
    """Print what the stored text has in addition to what was shown, or all of it if it is another attempt's."""
    if job.text is None:
        if shown:
            click.echo()
        return
    if not job.text.startswith(shown):
        click.echo()
        _print_message("the stored text is from another attempt:")
        shown = ""
    click.echo(job.text[len(shown) :])


def _print_message(message: str) -> None:
    click.echo(f"-- {message}", err=True)
