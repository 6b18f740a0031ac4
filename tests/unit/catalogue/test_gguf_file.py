from __future__ import annotations

import random
from pathlib import Path

import gguf
import pytest

from docmill.catalogue.errors import ModelDamaged
from docmill.catalogue.fingerprint import quick_fingerprint
from docmill.catalogue.gguf_file import _read, read_header, verify
from docmill.catalogue.local_model import Model
from tests.unit.catalogue.conftest import write_gguf


def test_the_header_says_what_was_written(tiny: Path) -> None:
    header = read_header(tiny)
    assert (header.architecture, header.name, header.context_window) == ("llama", "tiny", 512)
    assert (header.tokenizer_model, header.pre_tokenizer) == ("gpt2", "smollm")
    assert list(header.tokens) == ["<|im_end|>", "a", "b", "ab"]
    assert list(header.token_types) == [3, 1, 1, 1]
    assert list(header.merges) == ["a b"]
    assert (header.bos_id, header.eos_ids, header.add_bos) == (None, (0,), False)
    assert header.chat_template == "{{ messages[0].content }}"


def test_every_value_and_every_tensors_end_is_what_the_gguf_package_reads(tiny: Path) -> None:
    theirs, ours = gguf.GGUFReader(tiny), _read(tiny)
    assert ours.values == {
        name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")
    }
    assert [(t.name, t.elements, t.end) for t in ours.tensors] == [
        (t.name, int(t.n_elements), int(t.data_offset + t.n_bytes)) for t in theirs.tensors
    ]


def test_the_demo_model_is_read_and_whole(demo_model: Model) -> None:
    verify(demo_model.path)
    header = read_header(demo_model.path)
    assert (header.architecture, header.context_window, len(header.tokens)) == ("llama", 8192, 49152)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is not a GGUF file"),
        (b"PK\x03\x04 a zip", "it is not a GGUF file"),
        (b"GGUF", "it is truncated or damaged"),
        (b"GGUF" + bytes(range(256)), "it is truncated or damaged"),
        (b"GGUF\x03\0\0\0" + b"\xff" * 64, "it is truncated or damaged"),
    ],
)
def test_a_file_that_is_not_a_gguf_is_refused_with_its_path_and_a_reason(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    for read in (verify, read_header):
        with pytest.raises(ModelDamaged, match=reason) as caught:
            read(path)
        assert str(path) in str(caught.value)


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.gguf", tmp_path):
        with pytest.raises(ModelDamaged, match="the file does not exist"):
            verify(path)


def test_a_truncated_file_is_refused_at_every_length(tiny: Path) -> None:
    whole = tiny.read_bytes()
    for size in range(0, len(whole), 13):
        tiny.write_bytes(whole[:size])
        with pytest.raises(ModelDamaged):
            verify(tiny)
    tiny.write_bytes(whole[:-1])
    with pytest.raises(ModelDamaged, match=r"it is truncated: norm\.weight exceeds the end of the file"):
        verify(tiny)


def test_a_file_without_weights_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelDamaged, match="it contains no tensors"):
        verify(write_gguf(tmp_path / "vocabulary.gguf", tensors=False))


def test_a_header_without_a_vocabulary_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bare.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(512)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelDamaged, match="its header lacks an architecture, a context length or a vocabulary"):
        read_header(path)


def test_flipped_bytes_never_raise_anything_but_model_damaged(tiny: Path) -> None:
    whole = tiny.read_bytes()
    chance = random.Random(5)
    refused = 0
    for number in range(300):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 1, 4))):
            damaged[chance.randrange(900)] = chance.randrange(256)
        path = tiny.with_name(f"{number}.gguf")
        path.write_bytes(damaged)
        for read in (verify, read_header):
            try:
                read(path)
            except ModelDamaged:
                refused += 1
    assert refused > 50


def test_a_fingerprint_tells_contents_apart_and_not_names(tmp_path: Path) -> None:
    first = write_gguf(tmp_path / "first.gguf")
    assert quick_fingerprint(first) == quick_fingerprint(write_gguf(tmp_path / "again.gguf"))
    assert quick_fingerprint(first) != quick_fingerprint(write_gguf(tmp_path / "other.gguf", seed=1))


@pytest.mark.parametrize("changed", [0, (16 << 20) - 1, -1, -(1 << 20)], ids=["head", "end of head", "last", "tail"])
def test_a_fingerprint_of_a_large_file_sees_its_header_and_its_end(tmp_path: Path, changed: int) -> None:
    path = tmp_path / "large"
    size = 24 << 20
    with path.open("wb") as file:
        file.truncate(size)
    before = quick_fingerprint(path)
    with path.open("r+b") as file:
        file.seek(changed % size)
        file.write(b"x")
    assert quick_fingerprint(path) != before
    with path.open("r+b", buffering=0) as file:
        file.seek(changed % size)
        file.write(b"\0")
        assert quick_fingerprint(path) == before
        file.truncate(size - 1)
    assert quick_fingerprint(path) != before
