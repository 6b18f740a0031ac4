"""`docmill demo`: the main job on documents that every Python has."""

from __future__ import annotations

from pathlib import Path

import click
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text
from sqlalchemy import text

from docmill.cli.commands.run import run_documents
from docmill.cli.context import CliContext, pass_context
from docmill.cli.display.output import print_table, stdout_console
from docmill.producer.composition import Backend

_CHARACTERS = 230_000  # about four minutes on two cores
_SHOWN = 6
_METRICS = """\
SELECT d.name AS document, count(*) AS jobs, sum(a.prompt_tokens) AS "read",
       sum(a.completion_tokens) AS written, round(avg(a.prefill_s), 2) AS prefill_s,
       round(avg(a.decode_s), 2) AS decode_s, round(avg(a.batch_size), 1) AS beside
FROM attempts a JOIN jobs j ON j.id = a.job_id JOIN documents d ON d.id = j.document_id
WHERE j.batch_id = :batch AND a.outcome = 'succeeded'
GROUP BY d.id, d.name ORDER BY "read" DESC LIMIT 8"""


@click.command(epilog="\b\nExamples:\n  docmill demo\n  docmill demo my-documents/")
@click.argument("paths", nargs=-1, metavar="[PATH...]")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("docmill-demo"), show_default=True,
    help="Where the Markdown files and results.jsonl go.",
)  # fmt: skip
@pass_context
def demo(context: CliContext, paths: tuple[str, ...], out: Path) -> None:
    """Summarize a good part of Python's own reference (or PATH) on this machine, and show what came of it."""
    inputs = list(paths) or [str(_reference(context.settings.home / "demo")), *_own_pages()]
    outcome = run_documents(context, inputs, out, engine=None, slots=None, options={})
    if outcome.interrupted:
        click.echo("stopped; `docmill demo` again goes on from here", err=True)
        context.exit(outcome.exit_code)
    backend = Backend(context.settings)
    console = stdout_console()
    for report, _ in zip(backend.reports.documents(outcome.status.id), range(_SHOWN), strict=False):
        costs = f"  {report.chunk_count} chunks, {report.tokens:,} tokens"
        console.print(Text.assemble("\n", (report.name, "bold"), costs))
        answer = report.summary or report.error or ""
        console.print(Markdown(answer) if console.is_terminal else answer)
    with backend.database.read() as session:
        rows = session.execute(text(_METRICS), {"batch": outcome.status.id})
        table = Table(*rows.keys(), box=None, pad_edge=False, title="the metrics, by SQL", title_justify="left")
        for row in rows:
            table.add_row(*(str(value) for value in row))
    console.print()
    print_table(table)
    query = _METRICS.replace(":batch", f"'{outcome.status.id}'")  # for a terminal of one's own
    click.echo(f"\nThe query:\n{query}\n\nThe database: {backend.database}")
    rest = outcome.status.documents_total - _SHOWN
    click.echo(f"The summaries{f' ({rest} more)' if rest > 0 else ''}: {out}/")
    context.exit(outcome.exit_code)


def _reference(directory: Path) -> Path:
    """Python's language reference as `pydoc` ships it, one file a topic, up to a size that runs in minutes."""
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
    """docmill's own README and guides, where this is a checkout or the README went with the package."""
    root = Path(__file__).resolve().parents[4]
    pages = [root / "README.md", root / "docs" / "walk.md"]
    return [str(page) for page in pages if page.is_file()]
