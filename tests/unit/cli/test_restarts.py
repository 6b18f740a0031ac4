from __future__ import annotations

import pytest

from docmill.cli.services.restarts import UNEXPECTED, Restarts


@pytest.mark.parametrize("status", [1, 2])
def test_a_service_that_said_why_it_ends_is_not_started_again(status: int) -> None:
    assert not Restarts().may_follow(status)


@pytest.mark.parametrize("status", [-9, 0, UNEXPECTED])
def test_a_service_that_dies_again_and_again_is_given_up(status: int) -> None:
    restarts = Restarts()
    assert [restarts.may_follow(status) for _ in range(5)] == [True] * 4 + [False]


def test_a_service_that_lasted_may_die_as_often_as_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    restarts = Restarts()
    for _ in range(4):
        restarts.may_follow(-9)
    monkeypatch.setattr("docmill.cli.services.restarts._LASTING_S", 0.0)
    restarts.started()
    assert restarts.may_follow(-9)
    monkeypatch.undo()
    assert [restarts.may_follow(-9) for _ in range(5)] == [True] * 4 + [False]
