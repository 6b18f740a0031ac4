"""`docmill plan` and the catalogue commands as they are typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from docmill.catalogue.errors import CatalogueError
from docmill.cli.main import cli
from tests.model_directories import write_exl2, write_small

SMALL = {
    "architectures": ["PhiForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
    "max_position_embeddings": 512,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_exl2(tmp_path_factory.mktemp("m") / "mistral"))


def call(home: Path, *arguments: str, config: str | None = None) -> Result:
    options = ["--home", str(home)]
    if config is not None:
        path = home / "config.yaml"
        path.write_text(config)
        options += ["--config", str(path)]
    return CliRunner().invoke(cli, [*options, *arguments])


def plans(result: Result) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(result.output)["plans"]
    return listed


def test_a_model_that_fits_is_shown_with_what_lies_on_the_gpu(tmp_path: Path, model: str) -> None:
    result = call(tmp_path, "plan", "--model", model, "--vram", "24GiB", "--window", "8192", "--slots", "8")
    assert result.exit_code == 0
    assert "fits: 8 jobs at once, a cache of 73,728 tokens" in result.output
    assert "MistralForCausalLM, exl2, 4.65 bits per weight" in result.output
    assert "3.85 GiB, and 0.25 GiB in main memory" in result.output
    assert "fp16, 131,072 bytes per token" in result.output


def test_a_model_that_does_not_fit_ends_with_1_and_says_what_would(tmp_path: Path, model: str) -> None:
    result = call(tmp_path, "plan", "--model", model, "--vram", "4GiB", "--window", "8192", "--slots", "2")
    assert result.exit_code == 1
    assert "does not fit: 1.9" in result.output
    assert "split over 2 GPUs (one more like the last): 1 job at once" in result.output
    assert "one GPU with 7.01 GiB free: 2 jobs at once" in result.output


def test_json_holds_what_the_table_shows_and_the_advised_plans(tmp_path: Path, model: str) -> None:
    result = call(tmp_path, "plan", "--model", model, "--vram", "6GiB", "--window", "8192", "--json")
    row = plans(result)[0]
    device = row["devices"][0]
    assert row["cache_tokens"] % 256 == 0
    assert device["used_bytes"] + device["free_bytes"] == device["vram_bytes"] == 6 << 30
    assert row["slots"] < row["slots_wanted"] == 16
    assert row["advice"][0]["plan"]["cache_type"] in ("q8", "q6", "q4")
    assert row["advice"][0]["plan"]["slots"] > row["slots"]
    assert json.loads(result.output)["model"]["cache_bytes_per_token"] == {
        "fp16": 131_072, "q8": 69_632, "q6": 53_248, "q4": 36_864,
    }  # fmt: skip


def test_each_gpu_has_its_own_plan_unless_the_model_is_split_over_them(tmp_path: Path, model: str) -> None:
    sizes = ("--vram", "4GiB", "--vram", "6GiB", "--window", "4096", "--slots", "1", "--json")
    each = plans(call(tmp_path, "plan", "--model", model, *sizes))
    assert [plan["fits"] for plan in each] == [False, True]
    (split,) = plans(call(tmp_path, "plan", "--model", model, *sizes, "--split"))
    assert split["fits"]
    assert [device["vram_bytes"] >> 30 for device in split["devices"]] == [4, 6]


def test_window_cache_type_and_slots_come_from_the_profile_and_flags_go_first(tmp_path: Path, model: str) -> None:
    config = (
        "advanced_llm:\n  model: llama-2-13b\n  context_window: 16384\n  optimization: {quantization: int4}\n"
        f"llm:\n  model: {model}\n  context_window: 6000\n  optimization: {{quantization: int8, batch_size: 3}}\n"
    )
    (row,) = plans(call(tmp_path, "plan", "--vram", "24GiB", "--json", config=config))
    assert (row["window"], row["cache_type"], row["slots_wanted"]) == (6000, "q8", 3)
    flags = ("--window", "900", "--cache", "q6", "--slots", "5")
    (row,) = plans(call(tmp_path, "plan", "--vram", "24GiB", "--json", *flags, config=config))
    assert (row["window"], row["cache_type"], row["slots_wanted"]) == (900, "q6", 5)
    result = call(tmp_path, "--profile", "advanced_llm", "plan", "--vram", "24GiB", config=config)
    assert isinstance(result.exception, CatalogueError)
    assert "docmill models pull llama-2-13b-chat" in str(result.exception)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("24GiB", 24 << 30),
        ("24 gib", 24 << 30),
        ("24GB", 24 * 10**9),
        ("8192MiB", 8 << 30),
        ("1.5GiB", 3 << 29),
        ("9000000000B", 9 * 10**9),
    ],
)
def test_sizes_are_read_with_their_units(tmp_path: Path, model: str, size: str, expected: int) -> None:
    (row,) = plans(call(tmp_path, "plan", "--model", model, "--vram", size, "--json"))
    assert row["devices"][0]["vram_bytes"] == expected


@pytest.mark.parametrize("size", ["24", "GiB", "24 G", "-4GiB", "0GiB", "24GiBs", "1e3MiB", ""])
def test_a_size_that_is_none_is_refused_with_an_example(tmp_path: Path, model: str, size: str) -> None:
    result = call(tmp_path, "plan", "--model", model, "--vram", size)
    assert result.exit_code == 2
    assert "as 24GiB, 24GB or 8192MiB" in result.output or "is not a size above 0" in result.output


def test_without_a_gpu_and_without_a_size_it_says_how_to_give_one(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for flags in ([], ["--gpus"]):
        result = call(tmp_path, "plan", "--model", model, *flags)
        assert result.exit_code == 2
        assert "--vram 24GiB" in result.output


def test_both_a_size_and_the_real_gpus_are_refused(tmp_path: Path, model: str) -> None:
    assert call(tmp_path, "plan", "--model", model, "--vram", "8GiB", "--gpus").exit_code == 2


def test_a_gguf_model_is_refused_with_what_runs_it(home: Path) -> None:
    result = call(home, "plan", "--model", "smollm2", "--vram", "8GiB")
    assert result.exit_code == 2
    assert "is a GGUF file" in result.output
    assert "llamacpp and openvino" in result.output


def test_an_architecture_that_exllamav2_does_not_run_names_the_engine_that_does(tmp_path: Path) -> None:
    phi_2 = write_small(tmp_path / "m", SMALL, {})
    result = call(tmp_path, "plan", "--model", str(phi_2), "--vram", "8GiB")
    assert isinstance(result.exception, CatalogueError)
    assert "exllamav2 does not run PhiForCausalLM; llamacpp runs" in str(result.exception)


def test_weights_of_another_format_are_refused(tmp_path: Path) -> None:
    config = {**SMALL, "architectures": ["LlamaForCausalLM"], "quantization_config": {"quant_method": "awq"}}
    awq = write_small(tmp_path / "m", config, {})
    result = call(tmp_path, "plan", "--model", str(awq), "--vram", "8GiB")
    assert result.exit_code == 2
    assert "awq" in result.output


def test_the_catalogue_is_listed_with_sizes_tiers_engines_and_what_is_here(home: Path) -> None:
    result = call(home, "models", "list")
    lines = {line.split()[0]: line for line in result.output.splitlines()}
    assert lines["smollm2-135m-instruct"].split()[-1] == "yes"
    mistral = lines["mistral-7b-instruct-v0.3"]
    for shown in ("7.2B", "32,768", "4.4 GB", "Standard", "Apache-2.0", "exllamav2, openvino, llamacpp", "no"):
        assert shown in mistral
    rows = {row["name"]: row for row in json.loads(call(home, "models", "list", "--json").output)}
    assert rows["llama-2-70b-chat"]["gated"] is True
    assert rows["phi-2"]["chat_template"] == "phi-2"
    assert rows["phi-2"]["computed_sizes"]["fp16"] == 5_560_000_000


def test_show_tells_of_a_model_that_is_not_here_where_its_numbers_are_from(home: Path) -> None:
    result = call(home, "models", "show", "mistral-7b")
    assert "https://huggingface.co/mistralai/Mistral-7B-Instruct-v0.3" in result.output
    assert "Q4_K_M 4.4 GB" in result.output
    assert "parameters times bits per weight" in result.output


def test_an_exl2_conversion_that_nobody_knows_of_cannot_be_pulled(home: Path) -> None:
    result = call(home, "models", "pull", "phi-2", "--exl2")
    assert result.exit_code == 2
    assert "no EXL2 conversion of phi-2" in result.output


def test_a_large_model_is_not_fetched_by_the_way(tmp_path: Path) -> None:
    result = call(tmp_path, "tokens", "--model", "llama-2-70b", "--text", "a")
    assert isinstance(result.exception, CatalogueError)
    assert "docmill models pull llama-2-70b-chat" in str(result.exception)
