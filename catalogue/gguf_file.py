"""What a GGUF file says of itself: architecture, window, vocabulary, chat template. The weights are not read.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, read by the `gguf` package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalogue.errors import ModelDamaged


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """The keys docmill uses. Token types: 1 normal, 3 control, 4 user-defined, 6 byte (llama.cpp's enum)."""

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
    """Read the header of a whole, undamaged file. Raises ModelDamaged."""
    reader = _open(path)
    try:
        header = _header(reader)
    except (TypeError, ValueError, AttributeError) as error:  # a value of another kind, a name that is no UTF-8
        raise ModelDamaged(path, f"its header is damaged ({type(error).__name__}: {error})") from error
    if header is None:
        raise ModelDamaged(path, "its header names no architecture, context length or vocabulary")
    return header


def _header(reader: Any) -> GgufHeader | None:
    def value(key: str, default: Any = None) -> Any:
        field = reader.fields.get(key)
        return default if field is None else field.contents()

    architecture = value("general.architecture")
    context_window = value(f"{architecture}.context_length")
    tokens = value("tokenizer.ggml.tokens")
    if not isinstance(architecture, str) or not context_window or not tokens:
        return None
    ids = [value(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom")]
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
        add_space_prefix=bool(value("tokenizer.ggml.add_space_prefix", default=True)),
    )


def verify(path: Path) -> None:
    """Raise ModelDamaged unless the file is a GGUF whose every tensor lies inside it.

    Engines trust these numbers: a truncated file ends some of them with a segmentation fault.
    """
    reader = _open(path)
    if not reader.tensors:
        raise ModelDamaged(path, "it holds no tensors")


def _open(path: Path) -> Any:
    import gguf

    if not path.is_file():
        raise ModelDamaged(path, "there is no such file")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelDamaged(path, "it does not begin as a GGUF file")
    try:
        reader = gguf.GGUFReader(path)
    except Exception as error:
        # The reader maps the file and indexes into it: damage shows as any kind of error.
        raise ModelDamaged(path, f"it is truncated or damaged ({type(error).__name__}: {error})") from error
    size = path.stat().st_size
    for tensor in reader.tensors:
        if tensor.data_offset + tensor.n_bytes > size:
            raise ModelDamaged(path, f"it is truncated: {tensor.name} ends behind the end of the file")
    return reader
