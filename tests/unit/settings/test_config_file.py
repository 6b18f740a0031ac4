from __future__ import annotations

from pathlib import Path

import pytest

from docmill.settings.defaults import Optimization, Profile
from docmill.settings.errors import SettingsError
from docmill.settings.load import load_settings

AS_THE_USER_WROTE_IT = """\
llm: {model: mistral-7b, temperature: 0.7, max_tokens: 2048, context_window: 8192}
optimization: {quantization: int8, threads: 4, batch_size: 1, cuda_enabled: true}
advanced_llm:
  model: llama-2-13b
  temperature: 0.5
  max_tokens: 4096
  context_window: 16384
  optimization: {quantization: int4, threads: 8, batch_size: 4, cuda_layers: all, kv_cache: true}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_users_file_loads_as_it_stands_and_every_value_lands(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, AS_THE_USER_WROTE_IT), environment={})
    assert dict(settings.profiles) == {
        "llm": Profile(
            model="mistral-7b",
            temperature=0.7,
            max_tokens=2048,
            context_window=8192,
            optimization=Optimization(quantization="int8", threads=4, batch_size=1, cuda_enabled=True),
        ),
        "advanced_llm": Profile(
            model="llama-2-13b",
            temperature=0.5,
            max_tokens=4096,
            context_window=16384,
            optimization=Optimization(quantization="int4", threads=8, batch_size=4, cuda_layers="all", kv_cache=True),
        ),
    }
    assert settings.profile() is settings.profiles["llm"]
    assert settings.profile("advanced_llm").model == "llama-2-13b"


def test_every_other_section_lands_too(tmp_path: Path) -> None:
    settings = load_settings(
        write(
            tmp_path,
            "home: /srv/docmill\nbroker: {url: redis://queue/0}\nstorage: {url: 'postgresql://db/docmill'}\n"
            "worker: {engine: llamacpp, slots: 8, lease_s: 30}\nproducer: {overlap_tokens: 50, encoding: cp1252}\n",
        ),
        environment={},
    )
    assert (str(settings.home), settings.broker.url) == ("/srv/docmill", "redis://queue/0")
    assert settings.storage.url == "postgresql://db/docmill"
    assert (settings.worker.engine, settings.worker.slots, settings.worker.lease_s) == ("llamacpp", 8, 30.0)
    assert (settings.producer.overlap_tokens, settings.producer.encoding) == (50, "cp1252")


@pytest.mark.parametrize("text", ["", "# nothing\n", "llm:\n", "llm: {}\n", "llm:\n  optimization:\nbroker:\n"])
def test_empty_files_and_sections_set_nothing(tmp_path: Path, text: str) -> None:
    assert load_settings(write(tmp_path, text), environment={}).profile() == Profile()


def test_anchors_may_be_shared_between_profiles(tmp_path: Path) -> None:
    settings = load_settings(
        write(
            tmp_path, "llm: {optimization: &small {threads: 2}}\nlarge_llm: {model: big.gguf, optimization: *small}\n"
        ),
        environment={},
    )
    assert settings.profile("large_llm").optimization.threads == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("llm:\n  temprature: 0.7\n", "{file}:2: unknown key llm.temprature; did you mean temperature?"),
        ("worker: {lanes: 3}", "{file}:1: unknown key worker.lanes; there are engine, slots, lookahead"),
        ("optimization:\n  thread: 4\n", "{file}:2: unknown key llm.optimization.thread; did you mean threads?"),
        ("big_llm:\n  optimization: {quantisation: int8}\n", "did you mean quantization?"),
        ("llm: {}\nbrokr: {url: x}\n", "{file}:2: unknown section 'brokr'; did you mean broker?"),
        ("gpu: {count: 2}\n", "{file}:1: unknown section 'gpu'; there are llm,"),
        ("llm:\n  max_tokens: many\n", "{file}:2: llm.max_tokens is 'many': it should be a valid integer"),
        ("llm:\n  max_tokens: 1.5\n", "{file}:2: llm.max_tokens is 1.5: it should be a valid integer"),
        ("llm:\n  max_tokens: true\n", "{file}:2: llm.max_tokens is True: it should be a number"),
        ("llm: {model: [a, b]}\n", "{file}:1: llm.model is ['a', 'b']: it should be a valid string"),
        ("llm: {model: {name: a}}\n", "{file}:1: llm.model is {'name': 'a'}: it should be a valid string"),
        ("llm: mistral-7b\n", "{file}:1: llm must be a section with keys, not 'mistral-7b'"),
        ("llm:\n- a\n", "{file}:1: llm must be a section with keys, not ['a']"),
        ("home: 7\n", "{file}:1: home must be the path of a directory, not 7"),
        ("llm:\n\n  temperature: 7\n", "{file}:3: llm.temperature is 7: it should be less than or equal to 5"),
        ("llm: {top_p: 0}\n", "llm.top_p is 0: it should be greater than 0"),
        ("llm: {temperature: .nan}\n", "llm.temperature is nan: it should be"),
        ("worker: {lease_s: .inf}\n", "worker.lease_s is inf: it should be a finite number"),
        ("optimization: {quantization: in8}\n", "llm.optimization.quantization is 'in8': it should be 'fp16', 'int8'"),
        ("optimization: {quantization: in8}\n", "; did you mean int8?"),
        ("optimization: {cuda_layers: -3}\n", "it should be 'all' or it should be greater than or equal to 0"),
        ("optimization: {cuda_layers: al}\n", "did you mean all?"),
        ("worker: {engine: llama.cpp}\n", "did you mean llamacpp?"),
        ("producer: {encoding: utf-9}\n", "{file}:1: producer.encoding is 'utf-9': this encoding does not exist"),
        ("llm:\n  max_tokens: 8192\n  context_window: 8192\n", "{file}:2: llm: max_tokens 8192 leaves no room"),
        ("small_llm: {context_window: 512}\n", "{file}:1: small_llm: max_tokens 512 leaves no room for text"),
        ("llm: {seed: 1}\nllm: {seed: 2}\n", "{file}:2: llm is set twice, here and at {file}:1"),
        ("llm:\n  seed: 1\n  seed: 2\n", "{file}:3: llm.seed is set twice, here and at {file}:2"),
        ("optimization: {threads: 1}\nllm:\n  optimization: {threads: 2}\n", "{file}:3: llm.optimization is set twice"),
        ("llm: {seed: 1\n", "{file}:2: not valid YAML: "),
        ("llm:\n\tseed: 1\n", "{file}:2: not valid YAML: "),
        ("just words", "{file}: the file must contain sections"),
        ("- llm\n", "{file}: the file must contain sections"),
        ("llm: {model: !!python/name:os.system x}\n", "{file}:1: llm.model: could not determine a constructor"),
        ("llm: {seed: 2026-13-45}\n", "{file}:1: llm.seed: month must be in 1..12"),
        ("llm: &x {optimization: *x}\n", "{file}:1: llm.optimization.optimization is a value, not a section"),
        ("? [llm]\n: {seed: 1}\n", "{file}:1: a key must be a plain word"),
    ],
)  # fmt: skip
def test_an_error_names_line_key_value_and_the_nearest_right_one(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load_settings(path, environment={})
    assert expected.replace("{file}", str(path)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_not_utf8_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read the configuration .*nowhere\.yaml: No such file"):
        load_settings(tmp_path / "nowhere.yaml", environment={})
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("llm: {model: é}".encode("latin-1"))
    with pytest.raises(SettingsError, match=r"latin\.yaml is not UTF-8"):
        load_settings(latin, environment={})


def test_an_unknown_profile_names_those_there_are(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, AS_THE_USER_WROTE_IT), environment={})
    with pytest.raises(SettingsError, match="unknown profile 'fast_llm'; the profiles are llm, advanced_llm"):
        settings.profile("fast_llm")
