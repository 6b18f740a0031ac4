from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import pytest

from docmill.storage.states import BatchState, DocumentState, JobState

LEGAL_MOVES: dict[type[StrEnum], Mapping[StrEnum, set[StrEnum]]] = {
    JobState: {
        JobState.QUEUED: {JobState.RUNNING, JobState.CANCELLED, JobState.EXPIRED},
        JobState.RUNNING: set(JobState) - {JobState.RUNNING},
        JobState.SUCCEEDED: set(),
        JobState.FAILED: {JobState.QUEUED},
        JobState.CANCELLED: set(),
        JobState.EXPIRED: set(),
    },
    DocumentState: {
        DocumentState.OPEN: set(DocumentState) - {DocumentState.OPEN},
        DocumentState.MERGING: {DocumentState.DONE, DocumentState.FAILED, DocumentState.CANCELLED},
        DocumentState.DONE: set(),
        DocumentState.FAILED: {DocumentState.OPEN, DocumentState.MERGING},
        DocumentState.CANCELLED: set(),
    },
    BatchState: {
        BatchState.VALIDATING: {BatchState.IN_PROGRESS, BatchState.FAILED, BatchState.CANCELLING},
        BatchState.IN_PROGRESS: {BatchState.FINALIZING, BatchState.EXPIRED, BatchState.CANCELLING},
        BatchState.FINALIZING: {BatchState.COMPLETED},
        BatchState.COMPLETED: {BatchState.IN_PROGRESS},
        BatchState.FAILED: set(),
        BatchState.EXPIRED: set(),
        BatchState.CANCELLING: {BatchState.CANCELLED},
        BatchState.CANCELLED: set(),
    },
}


@pytest.mark.parametrize("states", [JobState, DocumentState, BatchState])
def test_only_retry_leads_out_of_a_terminal_state(states: type[StrEnum]) -> None:
    assert set(LEGAL_MOVES[states]) == set(states)
    ways_out = {(a, b) for a, moves in LEGAL_MOVES[states].items() for b in moves if a.is_terminal}  # type: ignore[attr-defined]
    assert ways_out <= {
        (JobState.FAILED, JobState.QUEUED),
        (DocumentState.FAILED, DocumentState.OPEN),
        (DocumentState.FAILED, DocumentState.MERGING),
        (BatchState.COMPLETED, BatchState.IN_PROGRESS),
    }
    ends = {state for state, moves in LEGAL_MOVES[states].items() if not moves}
    assert all(state.is_terminal for state in ends)  # type: ignore[attr-defined]


def test_terminal_states_are_those_a_person_would_call_ended() -> None:
    assert {state for state in JobState if not state.is_terminal} == {"queued", "running"}
    assert {state for state in DocumentState if not state.is_terminal} == {"open", "merging"}
    assert {state for state in BatchState if not state.is_terminal} == {
        "validating", "in_progress", "finalizing", "cancelling",
    }  # fmt: skip
