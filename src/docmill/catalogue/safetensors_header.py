"""Read the header of a safetensors file: names, types and positions of its tensors. Weights are not read.

Format: https://huggingface.co/docs/safetensors/index. Eight bytes give the length (little-endian) of the JSON that
follows.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docmill.catalogue.errors import ModelDamaged

_LENGTH_BYTES = 8
_LONGEST_HEADER = 100_000_000  # bytes; the format's own limit


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor: its type (F16, BF16, I32, ...), its shape and its size in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int

    @property
    def elements(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)


def read_tensors(path: Path) -> list[TensorEntry]:
    """The tensors of an undamaged file, in the order of the header. Raises ModelDamaged."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            if size < _LENGTH_BYTES or length > min(_LONGEST_HEADER, size - _LENGTH_BYTES):
                raise ModelDamaged(path, "it is truncated or not a safetensors file")
            header = json.loads(file.read(length))
    except (ValueError, RecursionError) as error:
        raise ModelDamaged(path, f"its safetensors header is not JSON ({error})") from error
    except OSError as error:
        raise ModelDamaged(path, error.strerror or str(error)) from error
    if not isinstance(header, dict):
        raise ModelDamaged(path, "its safetensors header is not a table of tensors")
    room = size - _LENGTH_BYTES - length
    return [_entry(path, name, value, room) for name, value in header.items() if name != "__metadata__"]


def _entry(path: Path, name: str, value: Any, room: int) -> TensorEntry:
    try:
        start, end = (int(offset) for offset in value["data_offsets"])
        entry = TensorEntry(name, str(value["dtype"]), tuple(int(n) for n in value["shape"]), end - start)
    except (TypeError, KeyError, ValueError) as error:
        raise ModelDamaged(path, f"its header has no valid type, shape and position for {name}") from error
    if not 0 <= start <= end:
        raise ModelDamaged(path, f"its header places {name} at bytes {start} to {end}")
    if end > room:
        raise ModelDamaged(path, f"it is truncated: {name} exceeds the end of the file")
    return entry
