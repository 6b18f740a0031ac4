from __future__ import annotations

import json
from pathlib import Path

import pytest

from docmill.catalogue.errors import ModelDamaged, ModelNotFound
from docmill.catalogue.find_model import find_model, local_models
from docmill.catalogue.local_model import ModelKind
from tests.unit.catalogue.conftest import write_gguf


def model_directory(path: Path, config: object = None, *, tokenizer: bool = True) -> Path:
    path.mkdir(parents=True)
    content = {"max_position_embeddings": 2048} if config is None else config
    (path / "config.json").write_text(content if isinstance(content, str) else json.dumps(content))
    if tokenizer:
        (path / "tokenizer.json").write_text("{}")
    return path


@pytest.mark.parametrize("name", ["smollm2-135m-instruct", "smollm2", "SmolLM2-135M-Instruct"])
def test_a_catalogue_model_is_found_by_name_or_alias_in_any_case(home: Path, name: str) -> None:
    model = find_model(name, home)
    assert (model.name, model.kind, model.context_window) == ("smollm2-135m-instruct", ModelKind.GGUF, 8192)
    assert model.suggested_chunk_tokens == 1000
    assert model.sha256 is not None
    assert model.path.is_file()


def test_a_missing_catalogue_model_says_how_to_download_it(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="download it with `docmill models pull smollm2-135m-instruct`"):
        find_model("smollm2", tmp_path)


def test_a_catalogue_model_of_the_wrong_size_is_damaged(own_home: Path) -> None:
    path = find_model("smollm2", own_home).path
    path.unlink()  # a link to the shared file
    path.write_bytes(b"GGUF")
    with pytest.raises(ModelDamaged, match=f"{path} is not a usable model: its size is wrong; download it again"):
        find_model("smollm2", own_home)
    assert local_models(own_home) == []


def test_a_gguf_file_is_found_by_its_path_even_relative(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny.parent)
    monkeypatch.setenv("HOME", str(tiny.parent))
    for name in (str(tiny), "Tiny.gguf", "./Tiny.gguf", "~/Tiny.gguf"):
        model = find_model(name, Path("no home"))
        assert (model.name, model.path, model.kind, model.context_window) == ("tiny", tiny, ModelKind.GGUF, 512)


def test_a_file_that_changed_is_read_again(tiny: Path) -> None:
    assert find_model(str(tiny), tiny.parent).context_window == 512
    tiny.write_bytes(b"GGUF, but not for long")
    with pytest.raises(ModelDamaged):
        find_model(str(tiny), tiny.parent)


def test_a_model_directory_is_found_by_its_path(tmp_path: Path) -> None:
    path = model_directory(tmp_path / "My-Model")
    model = find_model(str(path), tmp_path)
    assert (model.name, model.path, model.kind, model.context_window) == ("my-model", path, ModelKind.DIRECTORY, 2048)


def test_the_window_of_a_model_that_also_sees_is_that_of_its_text(tmp_path: Path) -> None:
    path = model_directory(tmp_path / "m", {"text_config": {"max_position_embeddings": 4096}})
    assert find_model(str(path), tmp_path).context_window == 4096


@pytest.mark.parametrize(
    ("config", "tokenizer", "reason"),
    [
        ({"max_position_embeddings": 8}, False, "tokenizer.json is missing"),
        ("{", True, "its config.json has no max_position_embeddings"),
        ({}, True, "its config.json has no max_position_embeddings"),
        ([], True, "its config.json has no max_position_embeddings"),
        ({"max_position_embeddings": None}, True, "its config.json has no max_position_embeddings"),
    ],
)
def test_an_incomplete_model_directory_says_what_is_missing(
    tmp_path: Path, config: object, tokenizer: bool, reason: str
) -> None:
    path = model_directory(tmp_path / "m", config, tokenizer=tokenizer)
    with pytest.raises(ModelDamaged, match=reason):
        find_model(str(path), tmp_path)


@pytest.mark.parametrize("name", ["owner/repo", "hf:owner/repo"])
def test_a_pulled_directory_is_found_by_its_name_on_the_hub(tmp_path: Path, name: str) -> None:
    path = model_directory(tmp_path / "models" / "owner--repo")
    model = find_model(name, tmp_path)
    assert (model.name, model.path, model.kind) == ("owner/repo", path, ModelKind.DIRECTORY)


def test_a_pulled_file_is_found_in_any_directory_of_its_repository(tmp_path: Path) -> None:
    directory = tmp_path / "models" / "owner--repo--sub--m.gguf" / "sub"
    directory.mkdir(parents=True)
    path = write_gguf(directory / "m.gguf")
    assert find_model("hf:owner/repo:sub/m.gguf", tmp_path).path == path


def test_only_whole_models_are_listed(own_home: Path) -> None:
    model_directory(own_home / "models" / "owner--whole")
    model_directory(own_home / "models" / "owner--torn", tokenizer=False)
    (model_directory(own_home / "models" / "owner--coming") / ".unfinished").touch()
    (own_home / "models" / "a file").touch()
    (own_home / "models" / "empty").mkdir()
    assert [model.name for model in local_models(own_home)] == ["owner/whole", "smollm2-135m-instruct"]


def test_no_home_holds_no_models(tmp_path: Path) -> None:
    assert local_models(tmp_path / "nowhere") == []


def test_an_unknown_name_says_the_nearest_and_where_to_look(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"no model 'smolm2' here; did you mean smollm2.*`docmill models list`"):
        find_model("smolm2", tmp_path)


def test_the_simulated_model_has_the_demo_models_vocabulary(home: Path) -> None:
    model = find_model("simulated", home)
    assert (model.kind, model.path) == (ModelKind.SIMULATED, find_model("smollm2", home).path)
