from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from docmill.catalogue.errors import ModelDamaged, PullFailed
from docmill.catalogue.find_model import find_model, local_models, models_directory
from docmill.catalogue.local_model import ModelKind
from docmill.catalogue.pull import pull
from tests.unit.catalogue.conftest import write_gguf
from tests.unit.catalogue.file_server import FileServer, Reply

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "maker/tiny"
SMALL = (".json", ".md")  # files that are stored in git itself


class Hub:
    """A repository on a server that implements what huggingface_hub uses."""

    def __init__(self, server: FileServer, files: dict[str, bytes]) -> None:
        self.server = server
        self.files = files
        self.digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        self.lists_digests = True
        self.publish()

    def publish(self) -> None:
        siblings: list[dict[str, object]] = []
        tree: list[dict[str, object]] = []
        for name, content in self.files.items():
            digest, size = self.digests[name], len(content)
            lfs = {"sha256": digest, "oid": digest, "size": size, "pointerSize": 130} if self._is_large(name) else None
            siblings.append({"rfilename": name, "size": size} | ({"lfs": lfs} if lfs and self.lists_digests else {}))
            etag = digest if lfs else hashlib.sha1(content).hexdigest()  # noqa: S324 - as git names what it holds
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(size)} if lfs else {}
            self.server.replies[self.path(name)] = Reply(content, headers)
            tree.append({"type": "file", "path": name, "size": size, "oid": "0" * 40} | ({"lfs": lfs} if lfs else {}))
        info = json.dumps({"id": REPO, "modelId": REPO, "sha": COMMIT, "siblings": siblings}).encode()
        for place in ("", "/revision/main", "/revision/v2", f"/revision/{COMMIT}"):
            self.server.replies[f"/api/models/{REPO}{place}"] = Reply(info, {"Content-Type": "application/json"})
        self.server.replies[f"/api/models/{REPO}/tree/{COMMIT}"] = Reply(
            json.dumps(tree).encode(), {"Content-Type": "application/json"}
        )

    @staticmethod
    def path(name: str) -> str:
        return f"/{REPO}/resolve/{COMMIT}/{name}"

    @staticmethod
    def _is_large(name: str) -> bool:
        return not name.endswith(SMALL)


@pytest.fixture(autouse=True)
def _hub_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: FileServer) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


@pytest.fixture
def gguf_hub(server: FileServer, tmp_path: Path) -> Hub:
    content = write_gguf(tmp_path / "made.gguf").read_bytes()
    return Hub(server, {"README.md": b"# tiny", "tiny.Q4_1.gguf": content, "tiny.Q8_0.gguf": content + b"\0"})


@pytest.fixture
def directory_hub(server: FileServer) -> Hub:
    return Hub(
        server,
        {
            "README.md": b"# tiny",
            "config.json": b'{"max_position_embeddings": 512}',
            "tokenizer.json": b"{}",
            "model.safetensors": bytes(range(256)) * 8,
            "pytorch_model.bin": b"never fetched",
        },
    )


def test_a_gguf_file_is_fetched_and_found_by_its_name(gguf_hub: Hub, tmp_path: Path) -> None:
    model = pull(f"hf:{REPO}:tiny.Q4_1.gguf", tmp_path)
    assert (model.kind, model.context_window) == (ModelKind.GGUF, 512)
    assert model.path.read_bytes() == gguf_hub.files["tiny.Q4_1.gguf"]
    assert find_model(f"{REPO}:tiny.Q4_1.gguf", tmp_path) == model
    assert [m.path for m in local_models(tmp_path)] == [model.path]
    assert gguf_hub.server.gets(gguf_hub.path("tiny.Q8_0.gguf")) == []


def test_a_model_directory_is_fetched_without_what_no_engine_reads(directory_hub: Hub, tmp_path: Path) -> None:
    model = pull(f"hf:{REPO}", tmp_path)
    assert (model.name, model.kind, model.context_window) == (REPO, ModelKind.DIRECTORY, 512)
    assert {child.name for child in model.path.iterdir() if not child.name.startswith(".")} == {
        "config.json", "tokenizer.json", "model.safetensors",
    }  # fmt: skip
    assert find_model(REPO, tmp_path) == model


def test_a_revision_is_asked_for_and_kept_apart(gguf_hub: Hub, tmp_path: Path) -> None:
    model = pull(f"hf:{REPO}@v2:tiny.Q4_1.gguf", tmp_path)
    assert f"/api/models/{REPO}/revision/v2" in {asked.path for asked in gguf_hub.server.asked}
    assert find_model(f"{REPO}@v2:tiny.Q4_1.gguf", tmp_path) == model


def test_a_broken_transfer_is_resumed_where_it_broke(
    gguf_hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 256)  # bytes that are written at a time
    path = gguf_hub.path("tiny.Q4_1.gguf")
    gguf_hub.server.breaks[path] = 1000
    model = pull(f"hf:{REPO}:tiny.Q4_1.gguf", tmp_path)
    assert [asked.start for asked in gguf_hub.server.gets(path)] == [None, 768]
    assert model.path.read_bytes() == gguf_hub.files["tiny.Q4_1.gguf"]


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "sent along"])
def test_a_file_with_a_wrong_hash_is_refused_and_deleted(gguf_hub: Hub, tmp_path: Path, listed: bool) -> None:
    name, right = f"hf:{REPO}:tiny.Q4_1.gguf", gguf_hub.digests["tiny.Q4_1.gguf"]
    gguf_hub.digests["tiny.Q4_1.gguf"] = "0" * 64
    gguf_hub.lists_digests = listed
    gguf_hub.publish()
    with pytest.raises(PullFailed, match=f"has SHA-256 {right}, but the hub states {'0' * 64}"):
        pull(name, tmp_path)
    assert not list(tmp_path.rglob("models/**/*.gguf"))
    assert local_models(tmp_path) == []
    gguf_hub.digests["tiny.Q4_1.gguf"] = right
    gguf_hub.publish()
    assert pull(name, tmp_path).context_window == 512


def test_an_interrupted_pull_is_not_a_model_and_the_next_one_downloads_only_the_rest(
    directory_hub: Hub, tmp_path: Path
) -> None:
    weights = directory_hub.path("model.safetensors")
    served = directory_hub.server.replies[weights]
    directory_hub.server.replies[weights] = Reply(status=404, headers={"X-Error-Code": "EntryNotFound"})
    with pytest.raises(PullFailed):
        pull(f"hf:{REPO}", tmp_path)
    with pytest.raises(ModelDamaged, match="its download is incomplete; download it again"):
        find_model(REPO, tmp_path)
    assert local_models(tmp_path) == []
    directory_hub.server.replies[weights] = served
    assert pull(f"hf:{REPO}", tmp_path).kind is ModelKind.DIRECTORY
    assert len(directory_hub.server.gets(directory_hub.path("tokenizer.json"))) == 1
    assert len(directory_hub.server.gets(weights)) == 1


def _no_repository(hub: Hub) -> None:
    for path in list(hub.server.replies):
        hub.server.replies[path] = Reply(status=404, headers={"X-Error-Code": "RepoNotFound"})


def _private(hub: Hub) -> None:
    for path in list(hub.server.replies):
        hub.server.replies[path] = Reply(status=401, headers={"X-Error-Code": "RepoNotFound"})


def _refused(hub: Hub) -> None:
    hub.server.replies[f"/api/models/{REPO}"] = Reply(status=403)


def _gated(hub: Hub) -> None:  # as on the hub: anyone can list the files
    hub.server.replies[hub.path("tiny.Q4_1.gguf")] = Reply(status=403, headers={"X-Error-Code": "GatedRepo"})


def _gated_and_logged_out(hub: Hub) -> None:
    hub.server.replies[hub.path("tiny.Q4_1.gguf")] = Reply(status=401, headers={"X-Error-Code": "GatedRepo"})


def _overloaded(hub: Hub) -> None:
    hub.server.replies[f"/api/models/{REPO}"] = Reply(status=503)


def _no_revision(hub: Hub) -> None:
    hub.server.replies[f"/api/models/{REPO}"] = Reply(status=404, headers={"X-Error-Code": "RevisionNotFound"})


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (_no_repository, f"the hub has no repository {REPO}, or it is private; if so, log in with `hf auth login`"),
        (_private, f"the hub has no repository {REPO}, or it is private; if so, log in with `hf auth login`"),
        (_refused, f"the hub refuses access to {REPO}; log in with `hf auth login`, or set HF_TOKEN"),
        (_gated, f"accept its licence on the page of {REPO}, then log in with `hf auth login`"),
        (_gated_and_logged_out, f"accept its licence on the page of {REPO}, then log in with `hf auth login`"),
        (_overloaded, "503 Service Unavailable"),
        (_no_revision, f"{REPO} has no revision"),
    ],
)
def test_trouble_with_the_hub_is_one_sentence_and_leaves_nothing(
    gguf_hub: Hub, tmp_path: Path, trouble: Callable[[Hub], None], message: str
) -> None:
    trouble(gguf_hub)
    with pytest.raises(PullFailed) as caught:
        pull(f"hf:{REPO}:tiny.Q4_1.gguf", tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [child for child in models_directory(tmp_path).iterdir() if child.is_dir()] == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"hf:{REPO}:tiny.Q4_0.gguf", "has no file tiny.Q4_0.gguf; it has tiny.Q4_1.gguf, tiny.Q8_0.gguf"),
        (f"hf:{REPO}", f"contains GGUF files; name one, as in hf:{REPO}:tiny.Q4_1.gguf"),
        ("hf:", r"the name of a model on the hub has the form hf:OWNER/REPO\[@REVISION\]\[:FILE\]"),
        ("hf:../../etc", "Repo id must"),
    ],
)
def test_a_wrong_reference_says_what_is_right(gguf_hub: Hub, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(PullFailed, match=message):
        pull(name, tmp_path)
    assert [child for child in models_directory(tmp_path).iterdir() if child.is_dir()] == []


def test_no_hub_at_all_leaves_an_earlier_model_usable(
    gguf_hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = pull(f"hf:{REPO}:tiny.Q4_1.gguf", tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(PullFailed, match=r"could not be downloaded: .*onnect.*; the same command continues"):
        pull(f"hf:{REPO}:tiny.Q4_1.gguf", tmp_path)
    assert find_model(f"{REPO}:tiny.Q4_1.gguf", tmp_path) == model
