"""Facts about the installed software: versions, unmet requirements, and which engine libraries can be imported.

Importing an engine library takes seconds and may crash, so each is imported in a separate process.
"""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from platform import python_version

from packaging.requirements import Requirement

from docmill.engine_table import ENGINES

_IMPORT_S = 120.0
_PACKAGES = ("celery", "kombu", "redis", "sqlalchemy", "psycopg", "pydantic", "tokenizers", "gguf", "rich", "flower")
_IMPORT_SCRIPT = """
import importlib, json, sys
module = importlib.import_module(sys.argv[1])
detail = ""
if sys.argv[1] == "torch":
    detail = f"CUDA {module.version.cuda}" if module.cuda.is_available() else "without CUDA"
elif sys.argv[1] == "xllamacpp":
    cpu = module.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU
    detail = "for the CPU" if all(d["type"] == cpu for d in module.get_device_info()) else "with a GPU"
print(json.dumps(detail))
"""


class Import(StrEnum):
    """The result of importing a library."""

    WORKS = "works"
    ABSENT = "absent"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Library:
    """An engine library. `detail` is what it supports, or why it cannot be imported."""

    name: str
    state: Import
    version: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Software:
    """Versions by package; `unmet` are requirements of docmill with the version installed instead ("" if none)."""

    python: str
    docmill: str
    versions: dict[str, str]
    unmet: tuple[tuple[str, str], ...]
    libraries: tuple[Library, ...]

    def works(self, module: str) -> bool:
        """True if the library can be imported."""
        return any(library.name == module and library.state is Import.WORKS for library in self.libraries)


def read_software() -> Software:
    """Read all of it. Takes as long as the slowest import."""
    return Software(
        python=python_version(),
        docmill=_version("docmill"),
        versions={name: found for name in _PACKAGES if (found := _version(name))},
        unmet=tuple(unmet_requirements(metadata.requires("docmill") or ())),
        libraries=read_libraries(tuple(dict.fromkeys(name for engine in ENGINES for name in engine.libraries))),
    )


def read_libraries(modules: Sequence[str]) -> tuple[Library, ...]:
    """Import each module in a separate process."""
    with ThreadPoolExecutor(max_workers=3) as pool:
        return tuple(pool.map(_library, modules))


def unmet_requirements(requirements: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The requirements (without extras) that are not met here, each with the installed version, "" if none."""
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = _version(requirement.name)
        if not found or not requirement.specifier.contains(found, prereleases=True):
            yield f"{requirement.name}{requirement.specifier}", found


def _library(module: str) -> Library:
    if importlib.util.find_spec(module) is None:
        return Library(module, Import.ABSENT)
    version = _version(module)
    command = [sys.executable, "-P", "-c", _IMPORT_SCRIPT, module]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_IMPORT_S, check=False)
    except subprocess.TimeoutExpired:
        return Library(module, Import.BROKEN, version, f"its import took longer than {_IMPORT_S:.0f} s")
    if done.returncode == 0:
        return Library(module, Import.WORKS, version, json.loads(done.stdout.splitlines()[-1]))
    if done.returncode < 0:
        killer = signal.strsignal(-done.returncode) or f"signal {-done.returncode}"
        return Library(module, Import.BROKEN, version, f"its import was killed: {killer}")
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return Library(
        module, Import.BROKEN, version, lines[-1].strip() if lines else "its import failed without a message"
    )


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
