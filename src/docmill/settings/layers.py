"""The sources of settings: flags, environment and file, as layers that remember where each value was set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import SafeConstructor

from docmill.settings.errors import SettingsError

Key = tuple[str, ...]
SECTIONS = ("llm", "optimization", "broker", "storage", "worker", "producer")
_PREFIX = "DOCMILL_"
_HOME = "DOCMILL_HOME"


@dataclass(slots=True)
class Layer:
    """Values by key, and where each value and each section was set."""

    values: dict[Key, Any] = field(default_factory=dict)
    sources: dict[Key, str] = field(default_factory=dict)

    def put(self, key: Key, value: Any, source: str) -> None:
        """Set one value."""
        self.values[canonical(key)] = value
        self.sources[canonical(key)] = source


def file_layer(path: Path) -> Layer:
    """The values of a YAML file, with their lines. Raises SettingsError."""
    try:
        node = yaml.compose(path.read_text("utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise SettingsError(f"cannot read the configuration {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"the configuration {path} is not UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise SettingsError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    layer = Layer()
    if isinstance(node, yaml.MappingNode):
        _walk(node, (), path, layer)
    elif node is not None:
        raise SettingsError(f"{path}: the file must contain sections such as `llm:`, not a single value or a list")
    return layer


def environment_layer(environment: Mapping[str, str]) -> Layer:
    """`DOCMILL_SECTION__KEY=value` and `DOCMILL_HOME`; an empty value or `null` means None. Raises SettingsError."""
    layer = Layer()
    for name, text in sorted(environment.items()):
        if not name.startswith(_PREFIX):
            continue
        parts = name.removeprefix(_PREFIX).lower().split("__")
        if name == _HOME and text:
            layer.put(("home",), text, name)
        elif len(parts) > 1:
            layer.put(tuple(parts), None if text.lower() in ("", "null", "~") else text, name)
        elif section := next((s for s in SECTIONS if parts[0].startswith(f"{s}_")), None):
            meant = f"{_PREFIX}{section}__{parts[0].removeprefix(f'{section}_')}".upper()
            raise SettingsError(f"{name}: section and key are separated by two underscores; did you mean {meant}?")
    return layer


def override_layer(overrides: Mapping[str, Any]) -> Layer:
    """Flags, as in `{"llm.temperature": 0.2}`."""
    layer = Layer()
    for dotted, value in overrides.items():
        layer.put(tuple(dotted.split(".")), value, "flag")
    return layer


def merge(*layers: Layer) -> Layer:
    """Combine layers; values of earlier layers win."""
    merged = Layer()
    for layer in reversed(layers):
        merged.sources |= layer.sources
        merged.values |= layer.values
    return merged


def canonical(key: Key) -> Key:
    """The key under which a setting is stored: a top-level `optimization` belongs to `llm`."""
    return ("llm", *key) if key[0] == "optimization" else key


def _walk(section: yaml.MappingNode, key: Key, path: Path, layer: Layer) -> None:
    for key_node, node in section.value:
        where = f"{path}:{key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise SettingsError(f"{where}: a key must be a plain word")
        child = canonical((*key, str(key_node.value)))
        name = ".".join(child)
        if child in layer.sources:
            raise SettingsError(f"{where}: {name} is set twice, here and at {layer.sources[child]}")
        layer.sources[child] = where
        if isinstance(node, yaml.MappingNode):
            if len(child) > 2:  # llm.optimization.threads is the deepest; a YAML alias can nest endlessly
                raise SettingsError(f"{where}: {name} is a value, not a section")
            _walk(node, child, path, layer)
            continue
        value = _value(node, f"{where}: {name}")
        if value is not None or not _is_section(child):  # an empty section sets nothing
            layer.put(child, value, where)


def _value(node: yaml.Node, where: str) -> Any:
    try:
        return SafeConstructor().construct_document(node)
    except (yaml.YAMLError, ValueError) as error:  # an unknown tag, a date that does not exist
        raise SettingsError(f"{where}: {getattr(error, 'problem', None) or error}") from None


def _is_section(key: Key) -> bool:
    return (len(key) == 1 and key != ("home",)) or key[1:] == ("optimization",)
