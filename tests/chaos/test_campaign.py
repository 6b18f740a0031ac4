"""The short part of the campaign; `make chaos` runs the long one. A schedule is the same whenever it is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.chaos.run import Stage, run
from tests.chaos.schedule import Kind, draw


@pytest.fixture(scope="module")
def stage(home: Path) -> Iterator[Stage]:
    """Not under pytest's directory: run by root, Postgres is another user's."""
    with TemporaryDirectory(prefix="docmill-chaos-") as directory:
        stage = Stage(home, Path(directory) / "stage")
        stage.directory.mkdir()
        yield stage
        stage.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
@pytest.mark.parametrize("seed", [1, 2])
def test_every_job_ends_once_whatever_dies(seed: int, database: str, stage: Stage) -> None:
    outcome = run(draw(seed, database, short=True), stage)
    assert not outcome.complaints, "\n".join([str(outcome), *outcome.complaints, *outcome.log])


def test_a_seed_draws_the_same_campaign_again() -> None:
    assert draw(17, "postgres") == draw(17, "postgres")
    assert draw(17, "postgres") != draw(18, "postgres")


@pytest.mark.parametrize(
    ("database", "never"),
    [
        ("sqlite", {kind for kind in Kind if kind.name.startswith("DATABASE")} - {Kind.DATABASE_LOCKED}),
        ("postgres", {Kind.DATABASE_LOCKED}),
    ],
)
def test_twenty_seeds_have_every_kind_of_fault(database: str, never: set[Kind]) -> None:
    drawn = {fault.kind for seed in range(1, 21) for fault in draw(seed, database).faults}
    assert drawn == set(Kind) - never - ({Kind.CONNECTIONS_DROPPED} if database == "sqlite" else set())


def test_no_two_faults_are_on_the_same_thing_at_once() -> None:
    for seed in range(100):
        over_at: dict[str, float] = {}
        for fault in draw(seed, "postgres").faults:
            assert fault.at_s > over_at.get(fault.resource, -1.0), (seed, fault)
            over_at[fault.resource] = fault.at_s + fault.lasts_s
