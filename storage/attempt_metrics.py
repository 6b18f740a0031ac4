"""What one attempt at a job measures: the only list of these numbers.

The engines' completions, the columns of the table `attempts`, the UPDATE that ends an attempt and the columns of the
views `v_jobs` and `v_attempts` are generated from the fields of `AttemptMetrics`. A new metric is one field here, a
migration that adds its column and recreates the two views, and a test. Engine processes import this module, so it
does not import SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import get_args, get_type_hints


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptMetrics:
    """The measurements of one attempt. Durations in seconds, sizes in bytes; None means not measured.

    Attributes:
        prompt_tokens: Tokens of the prompt, cached ones included.
        queue_s: Time in the engine before the prompt was read.
        prefill_s: Time spent reading the prompt, until the first token was generated.
        decode_s: Time from the first generated token to the last.
        cached_tokens: Prompt tokens whose keys and values were in the engine's cache and were not computed again.
        completion_tokens: Tokens generated, including an end-of-text token.
        batch_size: Mean number of requests in the engine while this one ran, including itself.
        peak_memory_bytes: Peak memory of the engine process; 0 until the process fills it in.
        peak_vram_bytes: Peak GPU memory allocated by the engine.
        energy_j: This attempt's share of the energy drawn by the engine's GPUs, in joules.
    """

    prompt_tokens: int
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    cached_tokens: int | None = None
    completion_tokens: int
    batch_size: float = 1.0
    peak_memory_bytes: int = 0
    peak_vram_bytes: int | None = None
    energy_j: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedText(AttemptMetrics):
    """The text of a successful attempt, why it ended ("stop" or "length"), and what the attempt measured."""

    text: str
    finish_reason: str


def _metric_types() -> Mapping[str, type[int] | type[float]]:
    hints = get_type_hints(AttemptMetrics)
    return {field.name: (get_args(hints[field.name]) or (hints[field.name],))[0] for field in fields(AttemptMetrics)}


METRIC_TYPES: Mapping[str, type[int] | type[float]] = _metric_types()
"""The name of every metric and the type of its values, in the order of the fields."""
