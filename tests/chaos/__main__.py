"""`python -m tests.chaos`: the long campaign, or one seed of it again."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

import click

from tests.chaos.regressions import REGRESSIONS
from tests.chaos.run import Outcome, enter, run_here
from tests.chaos.schedule import draw
from tests.homes import shared_home


def main() -> int:
    """The exit code: 1 when something broke."""
    arguments = _arguments()
    seeds = arguments.seed or range(arguments.first, arguments.first + arguments.seeds)
    campaigns = [
        draw(seed, database, engine=arguments.engine, short=arguments.short, faults=arguments.faults)
        for seed in seeds
        for database in arguments.database or ("sqlite", "postgres")
    ]
    if not (arguments.seed or arguments.short or arguments.faults):
        campaigns.append(draw(1, "sqlite", engine="openvino"))
        known = {(c.seed, c.database, c.engine) for c in campaigns}
        campaigns += [draw(s, d, engine=e) for s, d, e in REGRESSIONS if (s, d, e) not in known]
    for campaign in campaigns if arguments.replay else ():
        click.echo(campaign)
    models = shared_home()
    began = time.monotonic()
    broken = 0
    with (
        _directory(arguments.keep) as directory,
        ProcessPoolExecutor(
            arguments.parallel, multiprocessing.get_context("spawn"), enter, (models, directory)
        ) as pool,
    ):
        for done in as_completed([pool.submit(run_here, campaign) for campaign in campaigns]):
            outcome = done.result()
            click.echo(outcome)
            if outcome.complaints:
                broken += 1
                _explain(outcome, directory)
            elif arguments.replay:
                click.echo("\n".join(f"  {line}" for line in outcome.log))
    click.echo(f"{len(campaigns)} campaigns in {time.monotonic() - began:.0f} s, {broken} broken")
    return 1 if broken else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, action="append", help="this seed; may be repeated")
    parser.add_argument("--first", type=int, default=1, help="the first of --seeds")
    parser.add_argument("--seeds", type=int, default=20, help="how many, on each database")
    parser.add_argument("--database", choices=("sqlite", "postgres"), action="append", help="both by default")
    parser.add_argument("--engine", choices=("simulated", "openvino"), default="simulated")
    parser.add_argument("--parallel", type=int, default=2, help="campaigns at the same time")
    parser.add_argument("--short", action="store_true", help="the campaigns that `make test` has")
    parser.add_argument("--faults", type=int, help="so many in each, to look for trouble")
    parser.add_argument("--replay", action="store_true", help="print the plan, and when each fault came")
    parser.add_argument("--keep", type=Path, help="where logs and databases of what broke are left")
    return parser.parse_args()


def _explain(outcome: Outcome, directory: Path) -> None:
    campaign = outcome.campaign
    click.echo("\n".join(f"    {complaint}" for complaint in outcome.complaints))
    click.echo("\n".join(f"      {line}" for line in outcome.log))
    click.echo(f"    again: python -m tests.chaos --seed {campaign.seed} --database {campaign.database} "
          f"--engine {campaign.engine} --replay; logs in {directory}")  # fmt: skip


@contextmanager
def _directory(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    yield Path(tempfile.mkdtemp(prefix="docmill-chaos-"))


if __name__ == "__main__":
    sys.exit(main())
