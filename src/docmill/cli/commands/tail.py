"""`docmill tail`: text as it is written."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import click

from docmill.broker.tail_channel import JobTextReader, TailChannel
from docmill.cli.context import CliContext, pass_context
from docmill.cli.services.connections import service_broker_url
from docmill.producer.composition import Backend
from docmill.storage.reads.tailed_jobs import TailedJob, TailedJobs
from docmill.storage.states import JobState

_LOOK_S = 0.5
_JOB = re.compile(r"(?:[\w-]+\.)?(\d+)(?:-\d+)?")  # 42, or the name that Flower shows: 261124-k7q2mx.42-1


@click.command(
    epilog="""\b
Examples:
  docmill tail 42
  docmill tail novel.txt
  docmill tail novel.txt --batch 261124-k7q2mx
"""
)
@click.argument("what", metavar="JOB|DOCUMENT")
@click.option("--batch", metavar="BATCH", help="The document's batch; the latest by default.")
@pass_context
def tail(context: CliContext, what: str, batch: str | None) -> None:
    """Show tokens as they are generated: of a job (its id, or its name in Flower) or of a document's jobs in turn.

    A document is followed to its end: its open jobs one after the other, and those of its later levels. The text
    goes to standard output, headings and remarks to standard error.
    """
    backend = Backend(context.settings)
    followed = TailedJobs(backend.database)
    channel = TailChannel(service_broker_url(context.settings))
    job = None if batch else _JOB.fullmatch(what)
    if job is not None:
        jobs = iter([followed.job(int(job[1])).id])
    else:
        jobs = _open_jobs(followed, followed.document(backend.batches.find(batch or "latest").id, what))
    failed = False
    try:
        for job_id in jobs:
            failed |= _follow(channel, followed, job_id).state is not JobState.SUCCEEDED
    finally:
        channel.close()
    if failed:
        context.exit(1)


def _open_jobs(followed: TailedJobs, document_id: int) -> Iterator[int]:
    """The document's open jobs, and those that are planned meanwhile, until it has ended."""
    seen = {job_id for job_id, state in followed.jobs(document_id).items() if state.is_terminal}
    while True:
        has_ended = followed.has_ended(document_id)
        new = [job_id for job_id in followed.jobs(document_id) if job_id not in seen]
        if new:
            seen.add(new[0])
            yield new[0]
        elif has_ended:
            return
        else:
            time.sleep(_LOOK_S)


def _follow(channel: TailChannel, followed: TailedJobs, job_id: int) -> TailedJob:
    with channel.read(job_id) as watching:
        job = followed.job(job_id)
        _say(f"{job.document}, level {job.level}, {job.position}: job {job.id}, {job.state} {job.owner or ''}".rstrip())
        while not job.state.is_terminal:
            _write_news(watching)
            job = followed.job(job_id)
        _write_rest(job, watching.text)
    if job.error:
        _say(f"{job.state}: {job.error_kind}: {job.error}")
    elif job.state is not JobState.SUCCEEDED:
        _say(str(job.state))
    return job


def _write_news(watching: JobTextReader) -> None:
    """Write what comes within half a second."""
    until = time.monotonic() + _LOOK_S
    while (left_s := until - time.monotonic()) > 0:
        epoch, had = watching.epoch, watching.text
        new = watching.new_text(left_s)
        if had and watching.epoch != epoch:
            click.echo()
            _say(f"attempt {watching.epoch} begins anew")
        if new:
            click.echo(new, nl=False)


def _write_rest(job: TailedJob, shown: str) -> None:
    """What the job's stored text has beyond what was shown; all of it where an unseen attempt wrote another."""
    if job.text is None:
        if shown:
            click.echo()
        return
    if not job.text.startswith(shown):
        click.echo()
        _say("the stored text is another attempt's:")
        shown = ""
    click.echo(job.text[len(shown) :])


def _say(remark: str) -> None:
    click.echo(f"-- {remark}", err=True)
