"""The demo model's text side in many shapes: other chat templates, a directory instead of a GGUF, small windows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import gguf
import pytest
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

from docmill.catalogue.local_model import Model
from docmill.producer.batch_plan import Plan, PlanRequest, make_plan
from docmill.producer.model_text import ModelText
from docmill.producer.prompts import PromptRenderer
from docmill.producer.task_files import Task, load_task
from docmill.producer.tokenizer import ModelTokenizer
from docmill.storage.database import Database
from docmill.storage.reads.documents import DocumentReport
from docmill.storage.schema import upgrade
from docmill.storage.states import DocumentState
from tests.unit.producer.store import Store

# Text that has broken chunkers: no white space, control characters, graphemes of many code points, right to left.
NASTY = [
    "a" * 40, "no-white_space/at.all," * 4, "\x00", "\x00\x01\x1f\x7f",
    "👩\u200d👩\u200d👧\u200d👦", "👩🏽\u200d🚀👨🏿\u200d🚒", "🇩🇪🇫🇷🇯🇵",
    "e\u0301\u0327\u0323", "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚", "नमस्ते", "한국어", "각", "日本語の文章。次の文。", "שלום עולם", "العربية",
    "\r\n", "\r", "\n", "\n\n", "\n\n\n   \n", "    ", "\t", "\u2028", "\u00a0", "\ufeff", "\u200b", "\ufffd",
    "```py\nx = 1\n\n\ny = 2\n```\n", "~~~\n", "# Heading\n", "\n## Next\n\n", "One. Two! Three? ", "don't we'll ",
    "understanding is 12345 times 3.14159 ", "Größe über Ärger ", "Слово за словом ", "λόγος και ", "<|im_end|>",
    "<|im_start|>system\n", "{{ text }}", "{% raw %}", "plain words in a row ", "and, more; words: here. ",
]  # fmt: skip


@dataclass(frozen=True)
class Llama:
    """llama.cpp's own tokenizer of the demo model."""

    url: str

    def encode(self, text: str) -> list[int]:
        body = json.dumps({"content": text, "add_special": False, "parse_special": False}).encode()
        request = Request(f"{self.url}/tokenize", body, {"Content-Type": "application/json"})  # noqa: S310
        with urlopen(request, timeout=60) as answer:  # noqa: S310 - a server on this machine
            ids: list[int] = json.load(answer)["tokens"]
        return ids


@pytest.fixture(scope="session")
def llama(demo_model: Model) -> Iterator[Llama]:
    """llama.cpp, an implementation that knows nothing of ours."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(demo_model.path)
    params.n_ctx = 64
    params.warmup = False
    params.verbosity = -1
    server = xllamacpp.Server(params)
    yield Llama(server.listening_address)
    del server


def write_tiny_gguf(path: Path, *, user_defined: Sequence[str] = (), **changes: str) -> Path:
    """A GGUF with a vocabulary of bytes and one merge, and no weights."""
    writer = gguf.GGUFWriter(path, "llama")
    keys = {"model": "gpt2", "pre": "smollm", "chat_template": "{{ messages[0].content }}"} | changes
    tokens = ["<|endoftext|>", "<|im_end|>", *sorted(ByteLevel.alphabet()), "th", *user_defined]
    writer.add_context_length(512)
    writer.add_tokenizer_model(keys["model"])
    writer.add_tokenizer_pre(keys["pre"])
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, *[1] * (len(tokens) - 2 - len(user_defined)), *[4] * len(user_defined)])
    writer.add_token_merges(["t h"])
    writer.add_eos_token_id(0)
    writer.add_chat_template(keys["chat_template"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


@pytest.fixture(scope="session")
def model_directory(model_text: ModelText, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model as a model directory of Hugging Face's kind, without weights."""
    directory = tmp_path_factory.mktemp("models") / "Smol-Directory"
    directory.mkdir()
    vocabulary = model_text.tokenizer.vocabulary
    tokenizer = Tokenizer.from_str(model_text.tokenizer._tokenizer.to_str())
    tokenizer.add_special_tokens(sorted(vocabulary.special_ids, key=vocabulary.special_ids.__getitem__))
    tokenizer.enable_truncation(16)  # as many are published
    tokenizer.enable_padding()
    tokenizer.save(str(directory / "tokenizer.json"))
    files = {
        "config.json": {"max_position_embeddings": 2048, "eos_token_id": 0},
        "tokenizer_config.json": {
            "bos_token": "<|im_start|>",
            "eos_token": {"content": "<|im_end|>"},
            "chat_template": vocabulary.chat_template,
        },
    }
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content))
    return directory


@pytest.fixture(scope="session")
def renderer_with(model_text: ModelText) -> Callable[..., PromptRenderer]:
    """A renderer of the demo model with another chat template."""

    def make(template: str | None, **vocabulary: Any) -> PromptRenderer:
        changed = replace(model_text.tokenizer.vocabulary, chat_template=template, **vocabulary)
        return PromptRenderer(ModelTokenizer(model_text.tokenizer._tokenizer, changed))

    return make


@pytest.fixture(scope="session")
def plan_of(model_text: ModelText) -> Callable[..., tuple[Plan, Task]]:
    """The plan of a task with these wishes, on the demo model."""

    def make(task: str | Task = "summarize", **wishes: Any) -> tuple[Plan, Task]:
        loaded = load_task(task) if isinstance(task, str) else task
        values: dict[str, Any] = {"model": model_text.model.name, "max_tokens": 256} | wishes
        return make_plan(PlanRequest(**values), loaded, model_text), loaded

    return make


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied."""
    path = tmp_path_factory.mktemp("template") / "docmill.db"
    database = Database(f"sqlite:///{path}")
    upgrade(database)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return path


@pytest.fixture
def store(empty_database: Path, model_text: ModelText, home: Path, tmp_path: Path) -> Iterator[Store]:
    shutil.copy(empty_database, tmp_path / "store.db")
    database = Database(f"sqlite:///{tmp_path}/store.db")
    yield Store(database, model_text, home)
    database.close()


def report(name: str, position: int = 0, **changes: Any) -> DocumentReport:
    """One finished document."""
    values: dict[str, Any] = {
        "id": position + 1, "position": position, "name": name, "source": name, "state": DocumentState.DONE,
        "characters": 100, "tokens": 20, "chunk_count": 2, "levels": 1, "remarks": (), "error": None,
        "summary": f"Summary of {name}.", "prompt_tokens": 50, "cached_tokens": 5, "completion_tokens": 10,
        "seconds": 1.23456, "windows": (),
    }  # fmt: skip
    return DocumentReport(**values | changes)
