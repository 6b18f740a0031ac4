from __future__ import annotations

import pytest

from docmill.cli.main import INTERNAL_ERROR
from docmill.cli.services.child_service import RestartLimit


@pytest.mark.parametrize("status", [1, 2])
def test_a_service_that_said_why_it_ends_is_not_started_again(status: int) -> None:
    assert not RestartLimit().allows(status)


@pytest.mark.parametrize("status", [-9, 0, INTERNAL_ERROR])
def test_a_service_that_dies_again_and_again_is_given_up(status: int) -> None:
    restarts = RestartLimit()
    assert [restarts.allows(status) for _ in range(5)] == [True] * 4 + [False]


def test_a_service_that_lasted_may_die_as_often_as_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    restarts = RestartLimit()
    for _ in range(4):
        restarts.allows(-9)
    monkeypatch.setattr("docmill.cli.services.child_service._STABLE_AFTER_S", 0.0)
    restarts.started()
    assert restarts.allows(-9)
    monkeypatch.undo()
    assert [restarts.allows(-9) for _ in range(5)] == [True] * 4 + [False]
