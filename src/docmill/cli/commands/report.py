"""`docmill report`."""

from __future__ import annotations

from pathlib import Path

import click

from docmill.cli.completion import complete_batches
from docmill.cli.context import CliContext, pass_context
from docmill.cli.display.output import print_json
from docmill.cli.options import batch_argument, json_option

_AMOUNT = click.FloatRange(min=0)


@click.command(
    epilog="""\b
Examples:
  docmill report latest
  docmill report 261124-k7q2mx --out report.html --price-per-hour 0.45 --currency EUR
  docmill report latest --against 261123-h2m4xv --energy-price 0.32 --watts 90
  docmill report latest --json | jq .durations.decode.p99
"""
)
@batch_argument
@click.option(
    "--out", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write; by default docmill-report-BATCH.html.",
)  # fmt: skip
@click.option("--against", metavar="BATCH", shell_complete=complete_batches, help="Compare with an earlier batch.")
@click.option("--price-per-hour", metavar="PRICE", type=_AMOUNT, help="Price of one worker for an hour.")
@click.option("--energy-price", metavar="PRICE", type=_AMOUNT, help="Price of a kWh.")
@click.option("--watts", metavar="W", type=_AMOUNT, help="Power of one worker, used if energy was not measured.")
@click.option("--currency", metavar="NAME", default="", help="Currency to show with amounts, such as EUR.")
@json_option
@pass_context
def report(
    context: CliContext,
    batch: str,
    out: Path | None,
    against: str | None,
    price_per_hour: float | None,
    energy_price: float | None,
    watts: float | None,
    currency: str,
    as_json: bool,
) -> None:
    """Write a report about a batch as one HTML file: totals, throughput, latency, failures, memory, cost.

    The file is self-contained. A batch that is still running is reported with its numbers so far. The charts need
    the extra `report`; --json prints the numbers without it and writes no file.
    """
    from docmill.insight.report.comparison import compare
    from docmill.insight.report.cost import Prices, cost_of
    from docmill.insight.report.html_page import render
    from docmill.insight.report.report_data import read_report
    from docmill.insight.report.to_json import to_json

    if watts is not None and energy_price is None:
        raise click.UsageError("--watts needs --energy-price, the price of a kWh")
    backend = context.backend
    data = read_report(backend.database, backend.batches.find(batch).id)
    prices = Prices(price_per_hour, energy_price, watts, currency)
    cost = cost_of(data, prices)
    comparison = None
    if against is not None:
        earlier = read_report(backend.database, backend.batches.find(against).id)
        comparison = compare(data, earlier, cost, cost_of(earlier, prices))
    shown_cost = cost if prices.are_given else None
    if as_json:
        print_json(to_json(data, shown_cost, comparison))
        return
    page = render(data, shown_cost, comparison)
    path = out or Path(f"docmill-report-{data.status.id}.html")
    path.write_text(page, encoding="utf-8")
    click.echo(f"wrote {path} ({len(page.encode()) / 1000:,.0f} kB)", err=True)
