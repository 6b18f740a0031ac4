"""Find the files of a model by its name or path. Never downloads."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from docmill.catalogue.errors import CatalogueError, ModelDamaged, ModelNotFound
from docmill.catalogue.gguf_file import read_header
from docmill.catalogue.hugging_face import UNFINISHED
from docmill.catalogue.known_models import find_entry, nearest_names
from docmill.catalogue.local_model import Model, ModelKind
from docmill.catalogue.model_entry import CatalogueEntry, HubSource, PyPISource

SIMULATED = "simulated"
SIMULATED_VOCABULARY = "smollm2-135m-instruct"


def models_directory(home: Path) -> Path:
    """The directory of pulled models, with a subdirectory for each."""
    return home / "models"


def packaged_path(entry: CatalogueEntry, source: PyPISource, home: Path) -> Path:
    """The path of a catalogue model from PyPI once it is pulled."""
    return models_directory(home) / entry.name / Path(source.member).name


def pulled_directory(name: str, home: Path) -> Path:
    """The directory of a model from the hub once it is pulled; `name` with or without `hf:`."""
    return models_directory(home) / name.removeprefix("hf:").replace("/", "--").replace(":", "--")


def find_model(name_or_path: str, home: Path) -> Model:
    """The model with this catalogue name, pulled name or path. Raises ModelNotFound or ModelDamaged."""
    if name_or_path == SIMULATED:
        vocabulary = find_model(SIMULATED_VOCABULARY, home)
        return Model(SIMULATED, vocabulary.path, ModelKind.SIMULATED, vocabulary.context_window)
    entry = find_entry(name_or_path)
    if entry is not None:
        return _from_entry(entry, home)
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return _from_directory(path.resolve())
    if path.is_file():
        return _from_gguf(path.resolve())
    pulled = pulled_directory(name_or_path, home)
    if pulled.is_dir():
        return _from_pulled(name_or_path, pulled)
    near = nearest_names(name_or_path)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ModelNotFound(
        name_or_path,
        f"{hint}`docmill models list` shows the catalogue, `docmill models pull hf:OWNER/REPO` downloads others",
    )


def local_models(home: Path) -> list[Model]:
    """The usable models on this machine."""
    found: list[Model] = []
    for child in sorted(models_directory(home).glob("[!.]*/")):
        with suppress(CatalogueError):
            found.append(find_model(child.name.replace("--", "/"), home))
    return found


def _from_entry(entry: CatalogueEntry, home: Path) -> Model:
    if isinstance(entry.source, PyPISource):
        return _entry_model(entry, _packaged(entry, entry.source, home), sha256=entry.source.sha256)
    for source in (entry.exl2, entry.source):  # an EXL2 directory exists only if the user pulled it
        pulled = pulled_directory(source.reference, home) if source else None
        if pulled is not None and pulled.is_dir() and not (pulled / UNFINISHED).exists():
            return _entry_model(entry, _from_pulled(entry.name, pulled))
    raise ModelNotFound(entry.name, _how_to_pull(entry, entry.source))


def _packaged(entry: CatalogueEntry, source: PyPISource, home: Path) -> Model:
    path = packaged_path(entry, source, home)
    if not path.is_file():
        raise ModelNotFound(entry.name, f"download it with `docmill models pull {entry.name}`")
    if path.stat().st_size != source.size_bytes:
        raise ModelDamaged(path, "its size is wrong")
    return Model(entry.name, path, ModelKind.GGUF, entry.context_window)


def _entry_model(entry: CatalogueEntry, found: Model, sha256: str | None = None) -> Model:
    """The model that was found, with what the catalogue states about it."""
    return replace(
        found,
        context_window=min(entry.context_window, found.context_window),
        suggested_chunk_tokens=entry.suggested_chunk_tokens,
        suggested_sampling=entry.suggested_sampling,
        sha256=sha256,
    )


def _how_to_pull(entry: CatalogueEntry, source: HubSource) -> str:
    gigabytes = entry.computed_sizes["Q4_K_M"] / 1e9
    exl2 = f", or with --exl2 for a GPU from {entry.exl2.repo}" if entry.exl2 else ""
    return f"download it with `docmill models pull {entry.name}` (about {gigabytes:.1f} GB from {source.repo}{exl2})"


def _from_gguf(path: Path) -> Model:
    return Model(path.stem.lower(), path, ModelKind.GGUF, read_header(path).context_window)


def _from_directory(path: Path) -> Model:
    config = path / "config.json"
    for needed in (config, path / "tokenizer.json"):
        if not needed.is_file():
            raise ModelDamaged(path, f"{needed.name} is missing")
    try:
        values = json.loads(config.read_text("utf-8"))
        window = int(values.get("text_config", values)["max_position_embeddings"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelDamaged(path, f"its config.json has no max_position_embeddings ({error})") from None
    return Model(path.name.lower(), path, ModelKind.DIRECTORY, window)


def _from_pulled(name: str, directory: Path) -> Model:
    if (directory / UNFINISHED).exists():
        raise ModelDamaged(directory, "its download is incomplete")
    files = sorted(directory.rglob("*.gguf"))
    model = _from_gguf(files[0]) if files else _from_directory(directory)
    return Model(name.removeprefix("hf:"), model.path, model.kind, model.context_window)
