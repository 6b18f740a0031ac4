"""`docmill demo`: summarize documents that come with Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from docmill.cli.context import CliContext, pass_context
from docmill.cli.display.output import new_table, print_table, stdout_console

if TYPE_CHECKING:
    from docmill.storage.reads.batch_status import BatchStatus

_CHARACTERS = 230_000  # a few minutes on two cores
_SHOWN = 6
_METRICS = """\
SELECT d.name AS document, count(*) AS jobs, sum(a.prompt_tokens) AS "read",
       sum(a.completion_tokens) AS written, round(avg(a.prefill_s), 2) AS prefill_s,
       round(avg(a.decode_s), 2) AS decode_s, round(avg(a.batch_size), 1) AS batch_size
FROM attempts a JOIN jobs j ON j.id = a.job_id JOIN documents d ON d.id = j.document_id
WHERE j.batch_id = :batch AND a.outcome = 'succeeded'
GROUP BY d.id, d.name ORDER BY "read" DESC LIMIT 8"""


@click.command(epilog="\b\nExamples:\n  docmill demo\n  docmill demo my-documents/")
@click.argument("paths", nargs=-1, metavar="[PATH...]")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("docmill-demo"), show_default=True,
    help="Directory for the Markdown files and results.jsonl.",
)  # fmt: skip
@pass_context
def demo(context: CliContext, paths: tuple[str, ...], out: Path) -> None:
    """Summarize part of Python's language reference (or PATH) on this machine, and show the summaries and metrics."""
    from docmill.cli.services.local_run import run_documents

    inputs = list(paths) or [str(_reference(context.settings.home / "demo")), *_own_pages()]
    outcome = run_documents(context, inputs, out, {})
    if outcome.interrupted:
        click.echo("stopped; run `docmill demo` again to continue", err=True)
        context.exit(outcome.exit_code)
    _print_summaries(context, outcome.status)
    _print_metrics(context, outcome.status)
    rest = outcome.status.documents_total - _SHOWN
    click.echo(f"The summaries{f' ({rest} more)' if rest > 0 else ''}: {out}/")
    context.exit(outcome.exit_code)


def _print_summaries(context: CliContext, status: BatchStatus) -> None:
    from rich.markdown import Markdown
    from rich.text import Text

    console = stdout_console()
    for report, _ in zip(context.backend.reports.documents(status.id), range(_SHOWN), strict=False):
        size = f"  {report.chunk_count} chunks, {report.tokens:,} tokens"
        console.print(Text.assemble("\n", (report.name, "bold"), size))
        answer = report.summary or report.error or ""
        console.print(Markdown(answer) if console.is_terminal else answer)


def _print_metrics(context: CliContext, status: BatchStatus) -> None:
    from sqlalchemy import text

    database = context.backend.database
    with database.read() as session:
        rows = session.execute(text(_METRICS), {"batch": status.id})
        table = new_table(*rows.keys(), title="the metrics, by SQL", title_justify="left")
        for row in rows:
            table.add_row(*(str(value) for value in row))
    click.echo()
    print_table(table)
    query = _METRICS.replace(":batch", f"'{status.id}'")
    click.echo(f"\nThe query:\n{query}\n\nThe database: {database}")


def _reference(directory: Path) -> Path:
    """Python's language reference as `pydoc` has it, one file per topic, up to a size that runs in minutes."""
    from pydoc_data.topics import topics

    directory = directory / "python-reference"
    directory.mkdir(parents=True, exist_ok=True)
    size = 0
    for name in sorted(topics):
        content = topics[name]
        if not 1_500 < len(content) < 30_000 or size + len(content) > _CHARACTERS:
            continue
        size += len(content)
        (directory / f"{name}.txt").write_text(content, encoding="utf-8")
    return directory


def _own_pages() -> list[str]:
    """docmill's README and a guide, if this is a checkout."""
    root = Path(__file__).resolve().parents[4]
    pages = [root / "README.md", root / "docs" / "walk.md"]
    return [str(page) for page in pages if page.is_file()]
