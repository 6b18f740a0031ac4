from __future__ import annotations

from enum import StrEnum

import pytest

from docmill.storage.states import BatchState, DocumentState, JobState


@pytest.mark.parametrize("states", [JobState, DocumentState, BatchState])
def test_only_retry_leads_out_of_a_terminal_state(states: type[StrEnum]) -> None:
    ways_out = {
        (a, b)
        for a in states
        for b in states
        if a.is_terminal and a.may_become(b)  # type: ignore[attr-defined]
    }
    assert ways_out <= {
        (JobState.FAILED, JobState.QUEUED),
        (DocumentState.FAILED, DocumentState.OPEN),
        (DocumentState.FAILED, DocumentState.MERGING),
        (BatchState.COMPLETED, BatchState.IN_PROGRESS),
    }


def test_terminal_states_are_those_a_person_would_call_ended() -> None:
    assert {state for state in JobState if not state.is_terminal} == {"queued", "running"}
    assert {state for state in DocumentState if not state.is_terminal} == {"open", "merging"}
    assert {state for state in BatchState if not state.is_terminal} == {
        "validating", "in_progress", "finalizing", "cancelling",
    }  # fmt: skip
