from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize

from docmill.catalogue.errors import ModelDamaged
from docmill.catalogue.f16_conversion import ensure_f16
from docmill.catalogue.gguf_file import verify
from tests.unit.catalogue.conftest import write_gguf

Q = gguf.GGMLQuantizationType


def tensors(path: Path) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def keys(path: Path) -> dict[str, Any]:
    fields = gguf.GGUFReader(path).fields
    return {name: field.contents() for name, field in fields.items() if not name.startswith("GGUF.")}


def test_every_weight_keeps_its_value_to_the_last_bit_of_f16(tiny: Path, tmp_path: Path) -> None:
    before, after = tensors(tiny), tensors(ensure_f16(tiny, tmp_path))
    assert list(after) == list(before)
    for name, tensor in before.items():
        values = dequantize(tensor.data, tensor.tensor_type)
        kept = Q.F32 if tensor.tensor_type == Q.F32 else Q.F16
        assert after[name].tensor_type == kept
        assert list(after[name].shape) == list(tensor.shape)
        assert np.array_equal(after[name].data, values.astype(np.float32 if kept == Q.F32 else np.float16))


def test_every_key_is_kept_but_the_kind_of_the_file(tiny: Path, tmp_path: Path) -> None:
    before, after = keys(tiny), keys(ensure_f16(tiny, tmp_path))
    assert after.pop("general.file_type") == gguf.LlamaFileType.MOSTLY_F16
    assert after == before


def test_the_same_content_is_converted_once_under_any_name(tiny: Path, tmp_path: Path) -> None:
    made = ensure_f16(tiny, tmp_path)
    first = made.stat()
    copy = write_gguf(tmp_path / "copy.gguf")
    assert ensure_f16(copy, tmp_path) == made
    assert (made.stat().st_ino, made.stat().st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
    other = ensure_f16(write_gguf(tmp_path / "other.gguf", seed=1), tmp_path)
    assert other != made


def test_calls_at_once_make_one_whole_file(tiny: Path, tmp_path: Path) -> None:
    barrier = threading.Barrier(4)

    def convert() -> tuple[Path, int]:
        barrier.wait()
        path = ensure_f16(tiny, tmp_path)
        return path, path.stat().st_ino

    with ThreadPoolExecutor(4) as pool:
        made = {future.result() for future in [pool.submit(convert) for _ in range(4)]}
    assert len(made) == 1
    verify(made.pop()[0])
    assert [path.suffix for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"] == [".gguf"]


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [Path.unlink, _truncate, lambda path: path.write_bytes(b"GGUF")])
def test_a_damaged_file_is_refused_and_leaves_nothing(
    tiny: Path, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    damage(tiny)
    with pytest.raises(ModelDamaged):
        ensure_f16(tiny, tmp_path)
    assert not list(tmp_path.glob("cache/*.gguf"))
    assert not list(tmp_path.glob("cache/*.part"))
