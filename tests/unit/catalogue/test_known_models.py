"""The catalogue: names, consistent numbers, and the way from an entry to its pulled files."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from docmill.catalogue.errors import ModelDamaged, ModelNotFound
from docmill.catalogue.families import (
    FAMILIES,
    ArchitectureUnsupported,
    engines_for,
    family_of,
    require_exllamav2,
)
from docmill.catalogue.find_model import find_model, packaged_path
from docmill.catalogue.known_models import ENTRIES, find_entry, find_entry_of_file, nearest_names
from docmill.catalogue.local_model import Model, ModelKind
from docmill.catalogue.model_entry import QUANTIZATIONS, CatalogueEntry, HubSource, PyPISource, Tier
from tests.model_directories import write_exl2


def entry(name: str) -> CatalogueEntry:
    found = find_entry(name)
    assert found is not None
    return found


def test_every_model_that_the_product_names_is_there() -> None:
    names = (
        "phi-2 phi-3-mini phi-3-mini-128k phi-3.5-moe mistral-7b orca-2-7b orca-2-13b llama-2-7b llama-2-13b "
        "llama-2-70b llama-3.1-8b llama-3.1-70b llama-3.2-1b llama-3.2-3b qwen2.5-0.5b qwen2.5-72b qwen3-0.6b "
        "qwen3-32b gemma-2-2b gemma-2-9b gemma-2-27b smollm2-135m smollm2-360m smollm2-1.7b"
    )
    missing = [name for name in names.split() if find_entry(name) is None]
    assert missing == []


def test_no_two_models_share_a_name() -> None:
    names = [name for found in ENTRIES for name in (found.name, *found.aliases)]
    assert len(names) == len(set(names))
    assert all(name == name.lower() for name in names)


@pytest.mark.parametrize("found", ENTRIES, ids=lambda found: found.name)
def test_an_entry_is_complete_and_its_numbers_belong_together(found: CatalogueEntry) -> None:
    assert "llamacpp" in found.engines
    assert found.license
    assert found.card.startswith("https://huggingface.co/")
    assert found.context_window % 1024 == 0
    assert found.suggested_chunk_tokens is None or found.suggested_chunk_tokens < found.context_window
    assert set(found.computed_sizes) == set(QUANTIZATIONS)
    # "7.2B" and 7,248,000,000 are the same number, as "16x3.8B (42B, ...)" and 41,873,000,000.
    shown = found.parameters.partition("(")[2].partition(",")[0] or found.parameters
    scale = 1e6 if shown.endswith("M") else 1e9
    assert float(shown[:-1]) * scale == pytest.approx(found.parameter_count, rel=0.35)
    if found.exl2 is not None:
        assert "exllamav2" in found.engines
        assert found.exl2.revision, "the branch of an EXL2 repository is its bits a weight"
    if isinstance(found.source, HubSource):
        assert (found.source.file or "").endswith("Q4_K_M.gguf")


def test_sizes_are_parameters_times_bits_a_weight() -> None:
    sizes = entry("mistral-7b").computed_sizes
    assert sizes["fp16"] == 7_248_000_000 * 2
    assert sizes["EXL2 4.65"] == 4_212_900_000
    assert sizes["Q4_K_M"] == pytest.approx(4.37e9, rel=0.02), "the published file has 4.37 GB"


@pytest.mark.parametrize(
    ("name", "tier"),
    [
        ("smollm2", Tier.BASIC),
        ("phi-2", Tier.BASIC),
        ("phi-3-mini", Tier.BASIC),
        ("mistral-7b", Tier.STANDARD),
        ("orca-2-7b", Tier.STANDARD),
        ("llama-3.1-8b", Tier.STANDARD),
        ("llama-2-13b", Tier.ADVANCED),
        ("phi-3.5-moe", Tier.ADVANCED),
        ("llama-2-70b", Tier.ADVANCED),
    ],
)
def test_the_tier_follows_the_size_at_four_bits(name: str, tier: Tier) -> None:
    assert entry(name).tier is tier


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mistral-7b", "mistral-7b-instruct-v0.3"),
        ("Mistral-7B-Instruct-v0.3", "mistral-7b-instruct-v0.3"),
        ("llama-2-13b", "llama-2-13b-chat"),
        ("ORCA-2", "orca-2-7b"),
    ],
)
def test_names_of_the_configuration_and_other_spellings_resolve(name: str, expected: str) -> None:
    assert entry(name).name == expected


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("llama-2-7b-chat.q4_k_m", "llama-2-7b-chat"),
        ("Orca-2-13B-exl2", "orca-2-13b"),
        ("TheBloke/phi-2-GGUF", "phi-2"),
        ("phi-2", "phi-2"),
        ("llama-2-7b.q4_k_m", None),  # the base model, not a chat model
        ("phi-2x", None),
        ("my-orca-2-7b", None),
    ],
)
def test_a_file_is_known_by_how_its_name_begins(file: str, expected: str | None) -> None:
    found = find_entry_of_file(file)
    assert (found.name if found else None) == expected


def test_a_misspelt_name_is_answered_with_near_ones() -> None:
    assert nearest_names("mistral-7") == ["mistral-7b-instruct-v0.3"]
    assert "phi-2" in nearest_names("phi2")
    assert nearest_names("zzzz") == []


def test_references_are_what_the_pull_command_takes() -> None:
    assert HubSource("o/r").reference == "hf:o/r"
    assert HubSource("o/r", "f.gguf").reference == "hf:o/r:f.gguf"
    assert HubSource("o/r", revision="4_25").reference == "hf:o/r@4_25"


@pytest.mark.parametrize(
    ("architecture", "engines"),
    [
        ("LlamaForCausalLM", ("exllamav2", "openvino", "llamacpp")),
        ("llama", ("openvino", "llamacpp")),
        ("MistralForCausalLM", ("exllamav2", "openvino", "llamacpp")),
        ("MixtralForCausalLM", ("exllamav2", "llamacpp")),
        ("Phi3ForCausalLM", ("exllamav2", "llamacpp")),
        ("Qwen2ForCausalLM", ("exllamav2", "openvino", "llamacpp")),
        ("qwen3", ("openvino", "llamacpp")),
        ("Qwen3MoeForCausalLM", ("exllamav2", "llamacpp")),
        ("Gemma2ForCausalLM", ("exllamav2", "llamacpp")),
        ("Gemma3ForConditionalGeneration", ("exllamav2", "llamacpp")),
        ("Gemma3ForCausalLM", ("llamacpp",)),
        ("PhiForCausalLM", ("llamacpp",)),
        ("phi2", ("llamacpp",)),
        ("PhiMoEForCausalLM", ("llamacpp",)),
        ("PhimoeForCausalLM", ("llamacpp",)),
        ("BertModel", ()),
    ],
)
def test_engines_of_an_architecture(architecture: str, engines: tuple[str, ...]) -> None:
    assert engines_for(architecture) == engines


def test_exllamav2_runs_only_listed_architectures_and_the_error_names_another_engine() -> None:
    allowed = {name for family in FAMILIES for name in family.exllamav2}
    assert allowed == {
        "LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "Phi3ForCausalLM", "Qwen2ForCausalLM",
        "Qwen3ForCausalLM", "Qwen3MoeForCausalLM", "GemmaForCausalLM", "Gemma2ForCausalLM",
        "Gemma3ForConditionalGeneration",
    }  # fmt: skip
    for name in allowed:
        require_exllamav2(name)
    for name in ("PhiForCausalLM", "PhiMoEForCausalLM", "Gemma3ForCausalLM", "BertModel"):
        with pytest.raises(ArchitectureUnsupported, match=f"does not run {name}; llamacpp runs"):
            require_exllamav2(name)


def test_every_entry_has_a_family() -> None:
    assert all(family_of(found.architecture) for found in ENTRIES)


def test_a_missing_model_says_how_to_download_it_and_its_size(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"docmill models pull mistral-7b-instruct-v0\.3.* 4\.4 GB .*--exl2"):
        find_model("mistral-7b", tmp_path)
    with pytest.raises(ModelNotFound, match=r"docmill models pull smollm2-135m-instruct`$"):
        find_model("smollm2", tmp_path)


def test_a_pulled_gguf_is_found_by_the_catalogue_name_with_what_the_catalogue_knows(
    own_home: Path, demo_model: Model
) -> None:
    wanted = entry("qwen3-0.6b")
    assert isinstance(wanted.source, HubSource)
    directory = own_home / "models" / wanted.source.reference[3:].replace("/", "--").replace(":", "--")
    directory.mkdir()
    shutil.copy(demo_model.path, directory / str(wanted.source.file))
    found = find_model("QWEN3-0.6B", own_home)
    assert (found.name, found.kind) == ("qwen3-0.6b", ModelKind.GGUF)
    assert found.context_window == 8192, "the file's window is the smaller one"
    assert found.suggested_sampling == {"temperature": 0.7, "top_p": 0.8, "top_k": 20}


def test_a_pulled_exl2_directory_comes_before_the_gguf_and_a_torn_one_is_damaged(tmp_path: Path) -> None:
    wanted = entry("mistral-7b")
    assert wanted.exl2 is not None
    directory = tmp_path / "models" / "bartowski--Mistral-7B-Instruct-v0.3-exl2@4_25"
    write_exl2(directory)
    with pytest.raises(ModelDamaged, match=r"tokenizer\.json is missing"):
        find_model("mistral-7b", tmp_path)
    (directory / "tokenizer.json").write_text("{}")
    found = find_model("mistral-7b", tmp_path)
    assert (found.name, found.kind, found.path) == (wanted.name, ModelKind.DIRECTORY, directory)
    assert found.context_window == 32_768


def test_a_packaged_file_of_the_wrong_size_is_damaged(tmp_path: Path) -> None:
    demo = entry("smollm2")
    assert isinstance(demo.source, PyPISource)
    path = packaged_path(demo, replace(demo.source, size_bytes=7), tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"GGUF")
    with pytest.raises(ModelDamaged, match="its size is wrong"):
        find_model("smollm2", tmp_path)
