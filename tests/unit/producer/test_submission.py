"""Options of a submission that cannot be right are refused before anything is stored."""

from __future__ import annotations

from typing import Any

import pytest

from docmill.producer.errors import ProducerError
from docmill.producer.submission import SubmitOptions


@pytest.mark.parametrize(
    "wrong",
    [
        {"priority": 10}, {"priority": -1}, {"priority": "first"}, {"priority": None}, {"summary_tokens": -1},
        {"max_tokens": True}, {"chunk_tokens": 0}, {"chunk_tokens": 100.5}, {"overlap_tokens": -1},
        {"deadline_s": "soon"}, {"deadline_s": float("nan")},
        {"sampling": {"seed": "x"}}, {"sampling": {"stop": (5,)}},
    ],
    ids=str,
)  # fmt: skip
def test_a_number_out_of_its_range_and_a_value_of_another_type_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ProducerError, match=next(iter(wrong.get("sampling", wrong)))):
        SubmitOptions(**wrong).check()


def test_options_within_their_ranges_are_accepted() -> None:
    SubmitOptions().check()
    sampling = {"seed": -1, "stop": ("END",)}
    SubmitOptions(priority=9, summary_tokens=1, chunk_tokens=1, overlap_tokens=0, sampling=sampling).check()
