"""Load the settings once: flags win over the environment (`DOCMILL_*`), the environment over config.yaml."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from platformdirs import user_data_path
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from docmill.settings.defaults import Optimization, Profile, Settings
from docmill.settings.errors import SettingsError
from docmill.settings.layers import SECTIONS, Key, Layer, environment_layer, file_layer, merge, override_layer
from docmill.settings.masking import mask

_TOP = (*SECTIONS, "home")
_PREFIXES = re.compile(r"^(Value error, |Input should be )")


def load_settings(
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Load the effective settings. `overrides` are flags by dotted key. Raises SettingsError.

    The file is `config`, otherwise `$DOCMILL_CONFIG`, otherwise `./config.yaml` if it exists.
    """
    env = os.environ if environment is None else environment
    file = _config_file(config, env)
    layer = merge(override_layer(overrides or {}), environment_layer(env), file_layer(file) if file else Layer())
    tree = _tree(layer)
    _check_sections(tree, layer)
    profiles = {name: tree.pop(name) for name in list(tree) if _is_profile(name)}
    profiles.setdefault("llm", {})
    home = Path(tree.pop("home", None) or user_data_path("docmill")).expanduser().absolute()
    try:
        settings = Settings.model_validate({**tree, "profiles": profiles, "home": home})
    except ValidationError as error:
        raise SettingsError(_explain(error.errors(), layer)) from None
    return settings.model_copy(update={"sources": {".".join(key): source for key, source in layer.sources.items()}})


def effective(settings: Settings) -> Iterator[tuple[str, Any, str]]:
    """Every setting as (dotted key, value, where it was set), with masked credentials."""
    yield "home", str(settings.home), settings.sources.get("home", "default")
    for name, profile in settings.profiles.items():
        yield from _leaves((name,), profile, settings.sources)
    for name in ("broker", "storage", "worker", "producer"):
        yield from _leaves((name,), getattr(settings, name), settings.sources)


def _leaves(prefix: Key, section: BaseModel, sources: Mapping[str, str]) -> Iterator[tuple[str, Any, str]]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        key = (*prefix, name)
        if isinstance(value, BaseModel):
            yield from _leaves(key, value, sources)
        else:
            yield ".".join(key), mask(value), sources.get(".".join(key), "default")


def _config_file(config: Path | None, env: Mapping[str, str]) -> Path | None:
    if config is not None:
        return config
    if named := env.get("DOCMILL_CONFIG"):
        if not Path(named).is_file():
            raise SettingsError(f"DOCMILL_CONFIG is {named!r}, which is not a file")
        return Path(named)
    here = Path("config.yaml")
    return here if here.is_file() else None


def _tree(layer: Layer) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for key, value in layer.values.items():
        place = root
        for part in key[:-1]:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise SettingsError(f"{layer.sources[key]}: {'.'.join(key[:-1])} is a value, not a section")
        place[key[-1]] = value
    return root


def _check_sections(tree: Mapping[str, Any], layer: Layer) -> None:
    for name, value in tree.items():
        where = layer.sources.get((name,)) or next(s for k, s in layer.sources.items() if k[0] == name)
        if name not in _TOP and not _is_profile(name):
            near = get_close_matches(name, _TOP, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_TOP)} and any *_llm"
            raise SettingsError(f"{where}: unknown section {name!r}; {hint}")
        if name == "home" and not isinstance(value, str | Path | None):
            raise SettingsError(f"{where}: home must be the path of a directory, not {value!r}")
        if name != "home" and not isinstance(value, dict):
            raise SettingsError(f"{where}: {name} must be a section with keys, not {mask(repr(value))}")


def _is_profile(name: str) -> bool:
    return name == "llm" or name.endswith("_llm")


def _explain(errors: Sequence[ErrorDetails], layer: Layer) -> str:
    """Describe the first wrong setting: where it was set, its value, what is allowed, and the nearest allowed value."""
    error = errors[0]
    key = _key_of(error, layer)
    name = ".".join(key)
    where = layer.sources.get(key, "the settings")
    if error["type"] == "extra_forbidden":
        near = get_close_matches(key[-1], _fields_of(key), n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_fields_of(key))}"
        return f"{where}: unknown key {name}; {hint}"
    message = " or ".join(_message(e) for e in errors if _key_of(e, layer) == key)  # unions give several
    value = error["input"]
    if isinstance(value, Mapping) and _is_profile(key[-1]):  # keys of a profile that contradict each other
        culprits = ((*key, "max_tokens"), (*key, "context_window"))
        where = next((layer.sources[culprit] for culprit in culprits if culprit in layer.sources), where)
        return f"{where}: {name}: {message}"
    near = (
        get_close_matches(value, re.findall(r"'([^']+)'", message), n=1, cutoff=0.3) if isinstance(value, str) else []
    )
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{where}: {name} is {mask(repr(value))}: {message}{hint}"


def _key_of(error: ErrorDetails, layer: Layer) -> Key:
    key: Key = tuple(str(part) for part in error["loc"])
    key = key[1:] if key[0] == "profiles" else key
    while len(key) > 1 and key not in layer.sources:
        key = key[:-1]  # pydantic appends the names of union members to the path
    return key


def _message(error: ErrorDetails) -> str:
    return _PREFIXES.sub(lambda found: "" if found[0].startswith("Value") else "it should be ", error["msg"])


def _fields_of(key: Key) -> list[str]:
    if "optimization" in key[:-1]:
        return list(Optimization.model_fields)
    if _is_profile(key[0]):
        return list(Profile.model_fields)
    section = Settings.model_fields[key[0]].annotation
    return list(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else []
