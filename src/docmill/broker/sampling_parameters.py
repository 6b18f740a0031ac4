"""The sampling parameters of a job, which the producer stores and every engine applies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Sampling:
    """The defaults are neutral: greedy decoding, no filter, no penalty.

    Temperature 0 is greedy decoding. `top_k` 0, `top_p` 1 and `min_p` 0 switch those filters off;
    `repetition_penalty` 1 leaves the logits unchanged. Without a `seed`, the engine chooses one. `stop` are strings
    that end the text and are not part of it. Raises ValueError for a value out of range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", tuple(self.stop))
        checks = {
            "temperature": 0.0 <= self.temperature <= 5.0,
            "top_p": 0.0 < self.top_p <= 1.0,
            "top_k": self.top_k >= 0,
            "min_p": 0.0 <= self.min_p <= 1.0,
            "repetition_penalty": 0.0 < self.repetition_penalty <= 10.0,
            "stop": all(self.stop),
        }
        for name, holds in checks.items():
            if not holds:
                raise ValueError(f"{name} is out of range: {getattr(self, name)!r}")

    @property
    def is_deterministic(self) -> bool:
        """The same prompt is meant to give the same text: decoding is greedy or the seed is fixed."""
        return self.temperature == 0.0 or self.seed is not None

    def to_json(self) -> dict[str, Any]:
        """The form stored in `jobs.sampling`."""
        return {**asdict(self), "stop": list(self.stop)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Sampling:
        """Read what `to_json` wrote. Raises TypeError for unknown names."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(stored) - known)
        if unknown:
            raise TypeError(f"unknown sampling parameter {unknown[0]!r}; known: {', '.join(sorted(known))}")
        return cls(**stored)
