from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from docmill.settings.defaults import Profile
from docmill.settings.errors import SettingsError
from docmill.settings.load import effective, load_settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file.yaml"
    path.write_text("home: /from/file\nllm:\n  model: file.gguf\n  seed: 1\n  top_k: 1\noptimization: {threads: 1}\n")
    return path


def test_defaults_need_no_file_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    settings = load_settings(environment={})
    assert settings.profile() == Profile(model="smollm2-135m-instruct", max_tokens=512)
    assert (settings.broker.url, settings.storage.url, settings.worker.engine) == (None, None, "auto")
    assert settings.home == tmp_path / "data" / "docmill"
    assert {source for _, _, source in effective(settings)} == {"default"}


def test_flags_win_over_environment_over_file_over_defaults(file: Path) -> None:
    environment = {"DOCMILL_LLM__SEED": "2", "DOCMILL_LLM__TOP_K": "2", "DOCMILL_OPTIMIZATION__THREADS": "2"}
    settings = load_settings(file, {"llm.seed": 3, "optimization.batch_size": 3}, environment)
    profile = settings.profile()
    assert (profile.model, profile.top_k, profile.seed, profile.max_tokens) == ("file.gguf", 2, 3, 512)
    assert (profile.optimization.threads, profile.optimization.batch_size) == (2, 3)
    sources = {key: source for key, _, source in effective(settings)}
    assert sources["llm.model"] == f"{file}:3"
    assert sources["llm.top_k"] == "DOCMILL_LLM__TOP_K"
    assert sources["llm.seed"] == "flag"
    assert sources["llm.max_tokens"] == "default"
    assert sources["llm.optimization.threads"] == "DOCMILL_OPTIMIZATION__THREADS"
    assert sources["llm.optimization.batch_size"] == "flag"


@pytest.mark.parametrize(
    ("overrides", "environment", "home", "source"),
    [
        ({"home": "/from/flag"}, {"DOCMILL_HOME": "/from/env"}, "/from/flag", "flag"),
        ({}, {"DOCMILL_HOME": "/from/env"}, "/from/env", "DOCMILL_HOME"),
        ({}, {"DOCMILL_HOME": ""}, "/from/file", "{file}:1"),
    ],
)
def test_home_follows_the_same_order(
    file: Path, overrides: dict[str, str], environment: dict[str, str], home: str, source: str
) -> None:
    shown = next(effective(load_settings(file, overrides, environment)))
    assert shown == ("home", home, source.format(file=file))


def test_the_file_is_the_flags_then_the_environments_then_the_directorys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("flag", "environment", "config"):
        (tmp_path / f"{name}.yaml").write_text(f"llm: {{model: {name}}}\n")
    monkeypatch.chdir(tmp_path)
    named = {"DOCMILL_CONFIG": str(tmp_path / "environment.yaml")}
    assert load_settings(tmp_path / "flag.yaml", environment=named).profile().model == "flag"
    assert load_settings(environment=named).profile().model == "environment"
    found = load_settings(environment={})
    assert (found.profile().model, found.sources["llm.model"]) == ("config", "config.yaml:1")


def test_a_missing_file_in_the_environment_is_an_error_and_not_skipped(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"DOCMILL_CONFIG is '.*nowhere\.yaml', which is not a file"):
        load_settings(environment={"DOCMILL_CONFIG": str(tmp_path / "nowhere.yaml")})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("DOCMILL_LLM__TEMPRATURE", "1", "unknown key llm.temprature; did you mean temperature?"),
        ("DOCMILL_LLM__MAX_TOKENS", "many", "llm.max_tokens is 'many': it should be a valid integer"),
        ("DOCMILL_WORKRE__SLOTS", "1", "unknown section 'workre'; did you mean worker?"),
        ("DOCMILL_OPTIMIZATION__QUANTIZATION", "int3", "did you mean int"),
        ("DOCMILL_BROKER_URL", "redis://h", "did you mean DOCMILL_BROKER__URL?"),
        ("DOCMILL_LLM", "x", None),
    ],
)
def test_a_wrong_variable_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    if expected is None:  # other programs' variables, and those that set no setting, are left alone
        load_settings(environment={name: value, "DOCMILL_LOG_LEVEL": "DEBUG", "OTHER__THING": "1"})
        return
    with pytest.raises(SettingsError) as caught:
        load_settings(environment={name: value})
    assert str(caught.value).startswith(f"{name}: ")
    assert expected in str(caught.value)


def test_variables_are_read_as_the_setting_wants_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("llm: {context_window: 4096}\nbroker: {url: redis://file/0}\n")
    settings = load_settings(
        environment={
            "DOCMILL_LLM__MODEL": "7",
            "DOCMILL_LLM__TEMPERATURE": "1e-1",
            "DOCMILL_LLM__CONTEXT_WINDOW": "null",
            "DOCMILL_BROKER__URL": "",
            "DOCMILL_OPTIMIZATION__KV_CACHE": "off",
            "DOCMILL_OPTIMIZATION__CUDA_LAYERS": "20",
            "DOCMILL_DEEP_LLM__MODEL": "a: b.gguf",
            "DOCMILL_PRODUCER__TEXT_FIELD": "no",
        }
    )
    profile = settings.profile()
    assert (profile.model, profile.temperature, profile.context_window) == ("7", 0.1, None)
    assert (settings.broker.url, settings.producer.text_field) == (None, "no")
    assert (profile.optimization.kv_cache, profile.optimization.cuda_layers) == (False, 20)
    assert settings.profile("deep_llm").model == "a: b.gguf"


def test_settings_are_frozen(file: Path) -> None:
    settings = load_settings(file, environment={})
    with pytest.raises(ValidationError):
        settings.worker.slots = 9  # type: ignore[misc]
