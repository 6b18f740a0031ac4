"""Shapes read from config.json and safetensors headers, and the errors for damaged files."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from docmill.catalogue.errors import ModelDamaged
from docmill.sizing.model_shape import read_model_shape
from tests.model_directories import MISTRAL_7B, write_config, write_exl2, write_safetensors, write_small

SMALL = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
    "max_position_embeddings": 512,
}
HEAD = {"lm_head.weight": ("F16", [300])}


def test_7b_at_4_65_bits_has_the_sizes_of_hand_arithmetic(tmp_path: Path) -> None:
    shape = read_model_shape(write_exl2(tmp_path / "m"))
    matrices = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336) + 4096 * 32768
    norms = (32 * 2 + 1) * 4096 * 2
    assert shape.weights_bytes == pytest.approx(matrices * 4.65 / 8 + norms, abs=4 * 300)
    assert shape.embedding_bytes == 32768 * 4096 * 2
    assert shape.bits_per_weight == pytest.approx(4.65, abs=0.001)
    assert (shape.layers, shape.dimensions.kv_heads, shape.dimensions.head_dim, shape.max_position) == (
        32,
        8,
        128,
        32768,
    )
    assert (shape.weights_format, shape.architecture) == ("exl2", "MistralForCausalLM")


def test_parts_of_a_model_are_distinguished(tmp_path: Path) -> None:
    shape = read_model_shape(write_small(tmp_path, SMALL, {**HEAD, "rotary.inv_freq": ("F16", [9])}))
    assert (shape.attention_bytes, shape.mlp_bytes) == ((1000, 1000), (3000, 3000))
    assert (shape.embedding_bytes, shape.head_bytes) == (800, 600 + 16)
    assert shape.weights_bytes == 2 * 4000 + 616


def test_weights_kept_as_floats_of_32_bits_are_counted_as_loaded(tmp_path: Path) -> None:
    shape = read_model_shape(write_small(tmp_path, SMALL, {"lm_head.weight": ("F32", [300])}))
    assert shape.head_bytes == 600 + 16


def test_tied_embedding_is_loaded_a_second_time_as_the_head(tmp_path: Path) -> None:
    shape = read_model_shape(write_small(tmp_path, {**SMALL, "tie_word_embeddings": True}, {}))
    assert (shape.embedding_bytes, shape.head_bytes) == (800, 800 + 16)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"kv_heads": 4, "head_dim": 16, "experts": 1, "residual_bytes": 2}),
        ({"num_key_value_heads": 2, "head_dim": 40}, {"kv_heads": 2, "head_dim": 40, "rotary_dim": 40}),
        ({"num_key_value_heads": None, "head_dim": None}, {"kv_heads": 4, "head_dim": 16}),
        ({"partial_rotary_factor": 0.5}, {"head_dim": 16, "rotary_dim": 8}),
        ({"model_type": "gemma2", "head_dim": 256}, {"residual_bytes": 4, "head_dim": 256}),
        ({"num_local_experts": 8}, {"experts": 8, "intermediate": 128}),
        ({"num_experts": 128, "moe_intermediate_size": 32}, {"experts": 128, "intermediate": 32}),
        ({"quantization_config": {"quant_method": "GPTQ"}}, {"weights_format": "gptq"}),
    ],
)
def test_odd_configurations_are_read_as_the_engine_reads_them(
    tmp_path: Path, changes: dict[str, Any], expected: dict[str, Any]
) -> None:
    shape = read_model_shape(write_small(tmp_path, {**SMALL, **changes}, HEAD))
    found = {name: getattr(shape, name, getattr(shape.dimensions, name, None)) for name in expected}
    assert found == expected


def test_text_configuration_nested_in_a_multimodal_one_is_found_with_its_defaults(tmp_path: Path) -> None:
    text = {key: SMALL[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers")}
    config = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "text_config": {**text, "model_type": "gemma3_text", "max_position_embeddings": 131_072},
        "vision_config": {"hidden_size": 1152},
    }
    tower = {"vision_tower.layers.0.self_attn.q_proj.weight": ("F16", [9999])}
    shape = read_model_shape(write_small(tmp_path, config, tower, "language_model."))
    assert (shape.dimensions.heads, shape.dimensions.kv_heads, shape.dimensions.head_dim, shape.max_position) == (
        8,
        4,
        256,
        131_072,
    )
    assert (shape.dimensions.hidden, shape.rotary_tables, shape.residual_bytes) == (64, 2, 4)
    assert shape.weights_bytes == 2 * 4000 + 16 + 800, "the vision tower is not loaded"


def test_a_model_in_several_files_is_one_model(tmp_path: Path) -> None:
    write_small(tmp_path, SMALL, {})
    write_safetensors(tmp_path / "model-00002.safetensors", HEAD)
    assert read_model_shape(tmp_path).head_bytes == 616


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    write_small(tmp_path, SMALL, {})
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelDamaged, match=r"model-00002-of-00002\.safetensors is missing"):
        read_model_shape(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"num_hidden_layers": 3}, "no weights for layer 2"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0, not a positive integer"),
        ({"vocab_size": "many"}, "vocab_size is 'many'"),
        ({"architectures": []}, "does not name exactly one architecture"),
    ],
)
def test_configurations_that_make_no_model_say_why(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    write_small(tmp_path, {**SMALL, **config}, HEAD)
    with pytest.raises(ModelDamaged, match=message):
        read_model_shape(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\0\0", '{"a": NaN'])
def test_unreadable_configuration_is_a_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelDamaged, match=r"config\.json is not a usable model"):
        read_model_shape(tmp_path)


def test_a_directory_without_weights_is_a_clear_error(tmp_path: Path) -> None:
    write_config(tmp_path, MISTRAL_7B)
    with pytest.raises(ModelDamaged, match="contains no safetensors files"):
        read_model_shape(tmp_path)


def _file(header: object, *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated or not a safetensors file"),
        (b"\x05\0\0", "truncated or not a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "truncated or not a safetensors file"),
        (_file(b"{}", length=99), "truncated or not a safetensors file"),
        (_file(b"\xff\xfe"), "not JSON"),
        (_file(b"[" * 100_000), "not JSON"),
        (_file([1, 2]), "not a table of tensors"),
        (_file({"a": 5}), "has no valid type, shape and position for a"),
        (
            _file({"a": {"dtype": "F16", "shape": [2], "data_offsets": [0]}}),
            "has no valid type, shape and position for a",
        ),
        (_file({"a": {"dtype": "F16", "shape": [2], "data_offsets": [4, 0]}}), "places a at bytes 4 to 0"),
        (_file({"a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}}), "truncated: a exceeds the end"),
    ],
)
def test_garbage_headers_are_clear_errors(tmp_path: Path, content: bytes, message: str) -> None:
    write_config(tmp_path, SMALL)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelDamaged, match=message):
        read_model_shape(tmp_path)
