"""Fetch from the Hugging Face Hub: one commit of a repository, every large file held against its SHA-256.

A transfer that breaks is resumed while it runs; what was interrupted goes on with the files that are missing. Until
all is there and verified the directory is marked, and nobody takes it for a model.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from docmill.catalogue.errors import PullFailed
from docmill.catalogue.model_entry import HubSource

UNFINISHED = ".unfinished"  # lies in a directory whose transfer has not ended
_REFERENCE = re.compile(r"hf:(?P<repo>[^@:]+)(?:@(?P<revision>[^:]+))?(?::(?P<file>.+))?")
_MODEL_FILES = ("*.json", "*.safetensors", "*.jinja", "tokenizer*", "*.model")
_LOGIN = "log in with `hf auth login`, or set HF_TOKEN"
_TIMEOUT_S = 30.0


def fetch(name: str, directory: Path) -> None:
    """Fetch `hf:OWNER/REPO[@REVISION][:FILE]` into the directory; without FILE, what a model directory needs.

    Raises PullFailed.
    """
    source = _parse(name)
    try:
        for file, digest in _transfer(name, source, directory).items():
            _verify(name, directory, file, digest)
        (directory / UNFINISHED).unlink()
    except PullFailed:
        raise
    except Exception as error:  # the hub's client has a family of its own, and lets its HTTP library's through
        raise PullFailed(name, _reason(error, source)) from error
    finally:
        _discard_empty(directory)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parse(name: str) -> HubSource:
    parts = _REFERENCE.fullmatch(name)
    if parts is None:
        raise PullFailed(name, "a model of the hub is named hf:OWNER/REPO[@REVISION][:FILE]")
    return HubSource(parts["repo"], parts["file"], parts["revision"])


def _transfer(name: str, source: HubSource, directory: Path) -> dict[str, str | None]:
    """Fetch the files; returns the SHA-256 of each, None for the small ones, which git knows by other means."""
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


def _wanted(name: str, source: HubSource, there: Sequence[str]) -> list[str]:
    """The files to fetch. Raises PullFailed naming those there are when the reference does not fit them."""
    if source.file:
        if source.file not in there:
            near = sorted(get_close_matches(source.file, there, n=3) or sorted(there)[:3])
            raise PullFailed(name, f"{source.repo} has no file {source.file}; it has {', '.join(near) or 'none'}")
        return [source.file]
    ggufs = [file for file in there if file.endswith(".gguf")]
    if ggufs and "config.json" not in there:
        raise PullFailed(name, f"{source.repo} holds GGUF files; name one, as in hf:{source.repo}:{ggufs[0]}")
    return [file for file in there if any(fnmatch(file, pattern) for pattern in _MODEL_FILES)]


def _verify(name: str, directory: Path, file: str, digest: str | None) -> None:
    path = directory / file
    if not path.is_file():
        raise PullFailed(name, f"{file} did not arrive; the same command goes on with what is missing")
    if digest is None:
        return
    found = sha256_of(path)
    if found != digest:
        path.unlink()
        raise PullFailed(name, f"{file} came with SHA-256 {found}, the hub says {digest}; it was deleted, try again")


def _etag_digest(directory: Path, file: str) -> str | None:
    """The SHA-256 that came along with a large file, for mirrors whose list of files leaves it out."""
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
        errors.RepositoryNotFoundError: f"the hub has no repository {source.repo}, or it is private: then {_LOGIN}",
        errors.RevisionNotFoundError: f"{source.repo} has no revision {source.revision}",
    }
    for kind, reason in what.items():
        if isinstance(error, kind):
            return str(reason)
    if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
        return f"the hub refuses {source.repo}; {_LOGIN}"
    lines = str(error).strip().splitlines()
    detail = lines[0].rstrip(".") if lines else type(error).__name__
    return f"{detail}; the same command goes on with what is missing"
