"""Download one commit of a repository from the Hugging Face Hub, and verify the SHA-256 of every large file.

A broken transfer is resumed; an interrupted download continues with the files that are missing. The directory is marked
as unfinished, and not used as a model, until all files have arrived and are verified.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from docmill.catalogue.errors import PullFailed
from docmill.catalogue.fingerprint import sha256_of
from docmill.catalogue.model_entry import HubSource

UNFINISHED = ".unfinished"  # a file in a directory whose download is incomplete
_REFERENCE = re.compile(r"hf:(?P<repo>[^@:]+)(?:@(?P<revision>[^:]+))?(?::(?P<file>.+))?")
_MODEL_FILES = ("*.json", "*.safetensors", "*.jinja", "tokenizer*", "*.model")
_LOGIN = "log in with `hf auth login`, or set HF_TOKEN"
_TIMEOUT_S = 30.0


def fetch(name: str, directory: Path) -> None:
    """Download `hf:OWNER/REPO[@REVISION][:FILE]` into the directory; without FILE, all that a model directory needs.

    Raises PullFailed.
    """
    source = _parse(name)
    try:
        for file, digest in _transfer(name, source, directory).items():
            _verify(name, directory, file, digest)
        (directory / UNFINISHED).unlink()
    except PullFailed:
        raise
    except Exception as error:  # the hub's client raises its own errors and those of its HTTP library
        raise PullFailed(name, _reason(error, source)) from error
    finally:
        _discard_empty(directory)


def _parse(name: str) -> HubSource:
    parts = _REFERENCE.fullmatch(name)
    if parts is None:
        raise PullFailed(name, "the name of a model on the hub has the form hf:OWNER/REPO[@REVISION][:FILE]")
    return HubSource(parts["repo"], parts["file"], parts["revision"])


def _transfer(name: str, source: HubSource, directory: Path) -> dict[str, str | None]:
    """Download the files. Returns the SHA-256 of each, None for small files, which the hub does not hash."""
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    endpoint = os.environ.get("HF_ENDPOINT")
    info = HfApi(endpoint=endpoint).model_info(
        source.repo, revision=source.revision, timeout=_TIMEOUT_S, files_metadata=True
    )
    large = {sibling.rfilename: sibling.lfs for sibling in info.siblings or ()}
    files = _wanted(name, source, list(large))
    directory.mkdir(exist_ok=True)
    (directory / UNFINISHED).touch()
    place: dict[str, Any] = {"revision": info.sha, "local_dir": directory, "endpoint": endpoint}
    if source.file:
        hf_hub_download(source.repo, source.file, **place)
    else:
        snapshot_download(source.repo, allow_patterns=list(_MODEL_FILES), **place)
    return {file: getattr(large[file], "sha256", None) or _etag_digest(directory, file) for file in files}


def _wanted(name: str, source: HubSource, existing: Sequence[str]) -> list[str]:
    """The files to download. Raises PullFailed, naming the existing files, if the reference does not match any."""
    if source.file:
        if source.file not in existing:
            near = sorted(get_close_matches(source.file, existing, n=3) or sorted(existing)[:3])
            raise PullFailed(name, f"{source.repo} has no file {source.file}; it has {', '.join(near) or 'none'}")
        return [source.file]
    ggufs = [file for file in existing if file.endswith(".gguf")]
    if ggufs and "config.json" not in existing:
        raise PullFailed(name, f"{source.repo} contains GGUF files; name one, as in hf:{source.repo}:{ggufs[0]}")
    return [file for file in existing if any(fnmatch(file, pattern) for pattern in _MODEL_FILES)]


def _verify(name: str, directory: Path, file: str, digest: str | None) -> None:
    path = directory / file
    if not path.is_file():
        raise PullFailed(name, f"{file} is incomplete; run the same command again to resume")
    if digest is None:
        return
    found = sha256_of(path)
    if found != digest:
        path.unlink()
        raise PullFailed(name, f"{file} has SHA-256 {found}, but the hub states {digest}; it was deleted, try again")


def _etag_digest(directory: Path, file: str) -> str | None:
    """The SHA-256 that was sent with a large file, for mirrors whose list of files lacks it."""
    record = directory / ".cache" / "huggingface" / "download" / f"{file}.metadata"  # commit, etag, time
    lines = record.read_text("utf-8").splitlines() if record.is_file() else []
    etag = lines[1].strip() if len(lines) > 1 else ""
    return etag if re.fullmatch("[0-9a-f]{64}", etag) else None


def _discard_empty(directory: Path) -> None:
    if directory.is_dir() and all(child.name.startswith(".") for child in directory.iterdir()):
        shutil.rmtree(directory, ignore_errors=True)


def _reason(error: Exception, source: HubSource) -> str:
    from huggingface_hub import errors

    what: dict[type[Exception], Any] = {
        errors.GatedRepoError: f"accept its licence on the page of {source.repo}, then {_LOGIN}",
        errors.RepositoryNotFoundError: f"the hub has no repository {source.repo}, or it is private; if so, {_LOGIN}",
        errors.RevisionNotFoundError: f"{source.repo} has no revision {source.revision}",
    }
    for kind, reason in what.items():
        if isinstance(error, kind):
            return str(reason)
    if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
        return f"the hub refuses access to {source.repo}; {_LOGIN}"
    lines = str(error).strip().splitlines()
    detail = lines[0].rstrip(".") if lines else type(error).__name__
    return f"{detail}; the same command continues with what is missing"
