"""Read the header of a GGUF file: architecture, context window, vocabulary, chat template. Weights are not read.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The `gguf` package's own reader takes seconds for a
vocabulary.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from docmill.catalogue.errors import ModelDamaged

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
_UINT64 = struct.Struct("<Q")
_UINT32 = struct.Struct("<I")
_MAX_DIMENSIONS = 8


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """The values docmill uses. Token types: 1 normal, 3 control, 4 user-defined, 6 byte (llama.cpp's enum)."""

    architecture: str
    name: str | None
    context_window: int
    chat_template: str | None
    tokenizer_model: str
    pre_tokenizer: str
    tokens: Sequence[str]
    token_types: Sequence[int]
    merges: Sequence[str]
    scores: Sequence[float]
    bos_id: int | None
    eos_ids: tuple[int, ...]
    unknown_id: int | None
    add_bos: bool
    add_space_prefix: bool


def read_header(path: Path) -> GgufHeader:
    """Read the header of an undamaged file; cached until the file changes. Raises ModelDamaged."""
    if not path.is_file():
        raise ModelDamaged(path, "the file does not exist")
    stat = path.stat()
    return _read_header(path, stat.st_size, stat.st_mtime_ns)


def verify(path: Path) -> None:
    """Raise ModelDamaged if the file is not a GGUF with all of its tensors inside the file.

    Engines do not check this: a truncated file makes some of them crash with a segmentation fault.
    """
    if not _read(path).tensors:
        raise ModelDamaged(path, "it contains no tensors")


def header_values(path: Path) -> Mapping[str, Any]:
    """All keys and values of the header. Raises ModelDamaged."""
    return _read(path).values


def f16_bytes(path: Path) -> int:
    """The size of the weights with two bytes each. Raises ModelDamaged."""
    return sum(2 * tensor.elements for tensor in _read(path).tensors)


@lru_cache(maxsize=8)
def _read_header(path: Path, size: int, mtime_ns: int) -> GgufHeader:
    del size, mtime_ns  # part of the cache key: a file that changed is read again
    value = _read(path).values.get
    architecture = value("general.architecture")
    context_window = value(f"{architecture}.context_length")
    tokens = value("tokenizer.ggml.tokens")
    if not isinstance(architecture, str) or not context_window or not tokens:
        raise ModelDamaged(path, "its header lacks an architecture, a context length or a vocabulary")
    ids = [value(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom")]
    try:
        return GgufHeader(
            architecture=architecture,
            name=value("general.name"),
            context_window=int(context_window),
            chat_template=value("tokenizer.chat_template"),
            tokenizer_model=value("tokenizer.ggml.model", ""),
            pre_tokenizer=value("tokenizer.ggml.pre", "default"),
            tokens=tokens,
            token_types=value("tokenizer.ggml.token_type", [1] * len(tokens)),
            merges=value("tokenizer.ggml.merges", []),
            scores=value("tokenizer.ggml.scores", []),
            bos_id=value("tokenizer.ggml.bos_token_id"),
            eos_ids=tuple(dict.fromkeys(int(i) for i in ids if i is not None)),
            unknown_id=value("tokenizer.ggml.unknown_token_id"),
            add_bos=bool(value("tokenizer.ggml.add_bos_token", value("tokenizer.ggml.model") == "llama")),
            add_space_prefix=bool(value("tokenizer.ggml.add_space_prefix", 1)),
        )
    except (TypeError, ValueError) as error:  # a value has the wrong type
        raise ModelDamaged(path, f"its header is damaged ({error})") from error


@dataclass(frozen=True, slots=True)
class _Tensor:
    """`end` is where its data ends, in bytes from the beginning of the file."""

    name: str
    elements: int
    end: int


@dataclass(frozen=True, slots=True)
class _Content:
    values: Mapping[str, Any]
    tensors: Sequence[_Tensor]


def _read(path: Path) -> _Content:
    if not path.is_file():
        raise ModelDamaged(path, "the file does not exist")
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ModelDamaged(path, "it is not a GGUF file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            size = len(data)
            try:
                content = _parse(_Cursor(data, len(_MAGIC)))
            except (struct.error, TypeError, ValueError) as error:
                raise ModelDamaged(path, f"it is truncated or damaged ({error})") from error
    for tensor in content.tensors:
        if tensor.end > size:
            raise ModelDamaged(path, f"it is truncated: {tensor.name} exceeds the end of the file")
    return content


def _parse(cursor: _Cursor) -> _Content:
    version = cursor.uint32()
    if version not in _VERSIONS:
        raise ValueError(f"its version is {version}; supported are 2 and 3, little-endian")
    tensor_count, value_count = cursor.uint64(), cursor.uint64()
    values: dict[str, Any] = {}
    for _ in range(value_count):
        key = cursor.text()
        values[key] = cursor.value(cursor.uint32())
    tensors = list(_tensors(cursor, tensor_count))
    alignment = int(values.get("general.alignment", 32))
    start = -(-cursor.at // alignment) * alignment if alignment > 0 else cursor.at
    return _Content(values, [replace(tensor, end=start + tensor.end) for tensor in tensors])


def _tensors(cursor: _Cursor, count: int) -> Iterator[_Tensor]:
    """The tensors, with ends relative to the beginning of the tensor data."""
    from gguf.constants import GGML_QUANT_SIZES

    sizes = {int(kind): size for kind, size in GGML_QUANT_SIZES.items()}
    for _ in range(count):
        name = cursor.text()
        dimensions = cursor.uint32()
        if dimensions > _MAX_DIMENSIONS:
            raise ValueError(f"{name} has {dimensions} dimensions")
        elements = prod(cursor.uint64() for _ in range(dimensions))
        kind, offset = cursor.uint32(), cursor.uint64()
        if kind not in sizes:
            raise ValueError(f"the quantization {kind} of {name} is unknown")
        block_elements, block_bytes = sizes[kind]
        yield _Tensor(name, elements, offset + elements // block_elements * block_bytes)


class _Cursor:
    """Reads values one after another from a mapped file. Raises struct.error or ValueError at its end."""

    def __init__(self, data: mmap.mmap, at: int) -> None:
        self._data = data
        self.at = at

    def uint32(self) -> int:
        """Read a 32-bit number."""
        return int(self._take(_UINT32))

    def uint64(self) -> int:
        """Read a 64-bit number."""
        return int(self._take(_UINT64))

    def text(self) -> str:
        """Read a length and that many bytes of UTF-8."""
        length = self.uint64()
        return self._bytes(length).decode()

    def value(self, kind: int) -> Any:
        """Read a value of this type."""
        if kind == _TEXT:
            return self.text()
        if kind == _ARRAY:
            return self._array(self.uint32(), self.uint64())
        return self._scalars(kind, 1)[0]

    def _array(self, kind: int, count: int) -> list[Any]:
        if kind == _TEXT:
            return [self.text() for _ in range(count)]
        return list(self._scalars(kind, count))

    def _scalars(self, kind: int, count: int) -> tuple[Any, ...]:
        if kind not in _SCALARS:
            raise ValueError(f"a value has the unknown type {kind}")
        length = struct.calcsize(f"<{_SCALARS[kind]}") * count
        return struct.unpack(f"<{count}{_SCALARS[kind]}", self._bytes(length))

    def _take(self, form: struct.Struct) -> Any:
        (value,) = form.unpack_from(self._data, self.at)
        self.at += form.size
        return value

    def _bytes(self, length: int) -> bytes:
        end = self.at + length
        if end > len(self._data):
            raise ValueError("its header is incomplete")
        taken = self._data[self.at : end]
        self.at = end
        return taken
