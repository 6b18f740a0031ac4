"""The layers settings come from, each with where every value was set: flags, environment, file, defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from settings.errors import SettingsError

Key = tuple[str, ...]
_PREFIX = "DOCMILL_"


@dataclass(slots=True)
class Layer:
    """Values by their path of keys, and where each of them (and each section) was set."""

    values: dict[Key, Any] = field(default_factory=dict)
    sources: dict[Key, str] = field(default_factory=dict)

    def put(self, key: Key, value: Any, source: str) -> None:
        """Set one value."""
        self.values[key] = value
        self.sources[key] = source


def file_layer(path: Path) -> Layer:
    """The values of a YAML file, each with its line. Raises SettingsError."""
    try:
        node = yaml.compose(path.read_text("utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise SettingsError(f"the configuration {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"the configuration {path} is not UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise SettingsError(f"{path}{line}: not YAML: {getattr(error, 'problem', None) or error}") from None
    layer = Layer()
    if node is not None:
        _walk(node, (), path, layer)
    return layer


def environment_layer(environment: Mapping[str, str]) -> Layer:
    """`DOCMILL_SECTION__KEY=value`; the value is read as YAML would read it."""
    layer = Layer()
    for name, text in sorted(environment.items()):
        if name.startswith(_PREFIX) and "__" in name:
            key = tuple(part.lower() for part in name.removeprefix(_PREFIX).split("__"))
            layer.put(key, _scalar(text), name)
    return layer


def override_layer(overrides: Mapping[str, Any]) -> Layer:
    """Flags: `{"llm.temperature": 0.2}`."""
    layer = Layer()
    for dotted, value in overrides.items():
        layer.put(tuple(dotted.split(".")), value, "flag")
    return layer


def merge(*layers: Layer) -> Layer:
    """One layer; earlier ones win. The top-level `optimization` is moved into `llm`, where it belongs."""
    merged = Layer()
    for layer in reversed(layers):
        merged.sources |= {_home_of(key): source for key, source in layer.sources.items()}
        merged.values |= {_home_of(key): value for key, value in layer.values.items()}
    return merged


def _home_of(key: Key) -> Key:
    return ("llm", *key) if key[0] == "optimization" else key


def _walk(node: yaml.Node, key: Key, path: Path, layer: Layer) -> None:
    source = f"{path}:{node.start_mark.line + 1}"
    if isinstance(node, yaml.MappingNode):
        if key:
            layer.sources[key] = source
        for key_node, value_node in node.value:
            child = (*key, str(key_node.value))
            if child in layer.sources:
                raise SettingsError(f"{path}:{key_node.start_mark.line + 1}: {'.'.join(child)} is set twice")
            layer.sources[child] = f"{path}:{key_node.start_mark.line + 1}"
            _walk(value_node, child, path, layer)
        return
    if not key:
        raise SettingsError(f"{path}: the file must hold sections like `llm:`, not a single value")
    value = yaml.safe_load(yaml.serialize(node))
    if value is None and len(key) == 1:
        return  # an empty section
    layer.put(key, value, source)


def _scalar(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return text if isinstance(value, (dict, list)) else value
