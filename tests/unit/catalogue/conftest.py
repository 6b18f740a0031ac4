"""Small model files, and a server to download them from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.quants import quantize

from tests.unit.catalogue.file_server import FileServer

Q = gguf.GGMLQuantizationType
SHAPES = {"q4.weight": (4, 64), "q8.weight": (2, 32), "half.weight": (3, 16), "norm.weight": (16,)}


def write_gguf(path: Path, *, tensors: bool = True, seed: int = 0) -> Path:
    """Write a useless model of a few kilobytes, with every type of key and four types of weights."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(512)
    writer.add_block_count(1)
    writer.add_rope_freq_base(10_000.0)
    writer.add_uint64("test.long", 1 << 40)
    writer.add_int8("test.short", -1)
    writer.add_array("test.numbers", [0.5, -2.0])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["<|im_end|>", "a", "b", "ab"])
    writer.add_token_types([3, 1, 1, 1])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(value=False)
    writer.add_chat_template("{{ messages[0].content }}")
    random = np.random.default_rng(seed)
    weights = {name: random.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    if tensors:
        writer.add_tensor("q4.weight", quantize(weights["q4.weight"], Q.Q4_1), raw_dtype=Q.Q4_1)
        writer.add_tensor("q8.weight", quantize(weights["q8.weight"], Q.Q8_0), raw_dtype=Q.Q8_0)
        writer.add_tensor("half.weight", weights["half.weight"].astype(np.float16))
        writer.add_tensor("norm.weight", weights["norm.weight"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A small GGUF file."""
    return write_gguf(tmp_path / "Tiny.gguf")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A web server for one test."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with FileServer() as running:
        yield running
