from __future__ import annotations

import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from docmill.producer.batch_plan import Plan
from docmill.producer.errors import InputNotFound, ProducerError
from docmill.producer.intake.documents import Document, Skipped, content_hash_of
from docmill.producer.submission import Resume, Submission
from docmill.producer.task_files import MergeStrategy, Task
from docmill.storage.database import Database
from docmill.storage.states import BatchState
from tests.unit.producer.store import Store

Planned = tuple[Plan, Task]
# All that a submission writes, without ids and times.
_CONTENT = """
    SELECT d.position, d.name, d.source, d.content_hash, d.identity, d.state, d.characters, d.tokens, d.chunk_count,
           d.open_jobs, c.position, c.char_start, c.char_end, c.tokens, c.text, j.level, j.position, j.prompt_ids,
           j.prompt_tokens, j.max_tokens, j.state, j.priority, b.state, b.jobs_total, b.documents_total,
           b.documents_open, b.tokens_planned
    FROM batches b LEFT JOIN documents d ON d.batch_id = b.id LEFT JOIN chunks c ON c.document_id = d.id
         LEFT JOIN jobs j ON j.document_id = d.id AND j.position = c.position
    ORDER BY d.position, c.position"""


class Crash(Exception):
    pass


class Mortal(Database):
    """A database that dies before or after its n-th write transaction."""

    def __init__(self, url: str, *, dies_at: int, after: bool) -> None:
        super().__init__(url)
        self._left = dies_at
        self._after = after

    @contextmanager
    def write(self) -> Iterator[Session]:
        self._left -= 1
        if self._left < 0 and not self._after:
            raise Crash
        with super().write() as session:
            yield session
        if self._left < 0:
            raise Crash


@pytest.fixture
def planned(plan_of: Callable[..., Planned]) -> Planned:
    """Small chunks, so that short texts have several."""
    return plan_of(chunk_tokens=60, max_tokens=100)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """Three documents, of one, several and many chunks."""
    directory = tmp_path / "docs"
    directory.mkdir()
    (directory / "a.txt").write_text("One short text.")
    (directory / "b.txt").write_text("Some more words in a row, and then some. " * 10)
    (directory / "c.txt").write_text("A third text, with other words in it.\n\n" * 15)
    return directory


def test_every_document_is_stored_with_its_chunks_and_their_prompts(store: Store, docs: Path, planned: Planned) -> None:
    submitted = store.submit([docs], planned)
    plan, task = planned
    assert (submitted.documents, submitted.skipped, submitted.resumed) == (3, [], False)
    assert store.contradictions() == []
    assert store.rows("SELECT state, documents_open FROM batches") == [("in_progress", 3)]
    prompts = iter(store.prompts(0))
    for position, path in enumerate(sorted(docs.iterdir())):
        chunks = store.rows(
            "SELECT c.text, c.char_start, c.char_end, c.tokens FROM chunks c JOIN documents d ON d.id = c.document_id "
            f"WHERE d.position = {position} ORDER BY c.position"
        )
        text = path.read_text()
        assert "".join(chunk for chunk, *_ in chunks) == text
        for index, (chunk, start, end, tokens) in enumerate(chunks):
            assert text[start:end] == chunk
            assert tokens == store.text.tokenizer.count(chunk) <= 60
            user = task.chunk.render(text=chunk, document=f"docs/{path.name}", index=index + 1)
            assert next(prompts) == store.text.renderer.render(plan.task.system, user).text
    assert next(prompts, None) is None
    assert store.rows("SELECT count(*) FROM jobs WHERE prompt_tokens + max_tokens > 8192") == [(0,)]


def test_a_documents_jobs_share_its_summary(store: Store, docs: Path, planned: Planned) -> None:
    store.submit([docs], planned)
    shares = store.rows(
        "SELECT DISTINCT d.chunk_count, j.max_tokens FROM jobs j JOIN documents d ON d.id = j.document_id"
    )
    assert len(shares) == 3
    assert all(max_tokens == planned[0].output_tokens(chunks) for chunks, max_tokens in shares)


def test_refine_begins_with_the_first_chunk_alone(store: Store, docs: Path, plan_of: Callable[..., Planned]) -> None:
    store.submit([docs], plan_of(chunk_tokens=60, merge_strategy=MergeStrategy.REFINE))
    assert store.rows("SELECT DISTINCT level, position FROM jobs") == [(0, 0)]
    assert store.rows("SELECT count(*) FROM jobs") == [(3,)]
    assert store.rows("SELECT count(*) > 3 FROM chunks") == [(1,)]


def _crash_and_resume(
    store: Store, docs: Path, planned: Planned, *, dies_at: int, after: bool, url: str
) -> list[tuple[Any, ...]] | None:
    """What is stored after a crash at this write and the same submission again; None when it did not crash."""
    mortal = Mortal(url, dies_at=dies_at, after=after)
    try:
        Store(mortal, store.text, store.home).submit([docs], planned)
    except Crash:
        mortal.close()
    else:
        mortal.close()
        return None
    survivor = Store(Database(url), store.text, store.home)
    assert survivor.contradictions() == []
    # Dead after its very last transaction, a submission is a finished one: `run` finds those, too.
    is_finished = survivor.rows("SELECT count(*) FROM batches WHERE state = 'in_progress'") == [(1,)]
    again = survivor.submit([docs], planned, resume=Resume.ANY if is_finished else Resume.UNFINISHED)
    assert again.documents == 3
    assert survivor.contradictions() == []
    assert survivor.rows("SELECT count(*), min(state) FROM batches") == [(1, "in_progress")]
    content = survivor.rows(_CONTENT)
    survivor.database.close()
    return content


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_at_any_transaction_doubles_and_loses_nothing(
    store: Store, docs: Path, planned: Planned, empty_database: Path, tmp_path: Path, *, after: bool
) -> None:
    store.submit([docs], planned)
    whole = store.rows(_CONTENT)
    crashes = 0
    while True:
        path = tmp_path / f"crash-{crashes}.db"
        path.write_bytes(empty_database.read_bytes())
        content = _crash_and_resume(store, docs, planned, dies_at=crashes, after=after, url=f"sqlite:///{path}")
        if content is None:
            break
        assert content == whole
        crashes += 1
    assert crashes >= 3 * 4  # batch, and for each document its row, chunks, jobs and end


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_interrupted_reading_is_taken_up_again(store: Store, docs: Path, planned: Planned, at: int) -> None:
    seen: list[str] = []

    def interrupt(document: Document | Skipped) -> None:
        if len(seen) == at:
            raise KeyboardInterrupt
        seen.append(document.name)

    with pytest.raises(KeyboardInterrupt):
        store.submit([docs], planned, on_document=interrupt)
    assert store.rows("SELECT count(*), min(state) FROM batches") == [(1, "validating")]
    assert store.rows("SELECT count(*) FROM documents") == [(at,)]
    submitted = store.submit([docs], planned)
    assert (submitted.documents, submitted.resumed) == (3, True)
    assert [name for (name,) in store.rows("SELECT name FROM documents ORDER BY position")] == [
        f"docs/{letter}.txt" for letter in "abc"
    ]
    assert store.contradictions() == []


def test_a_killed_submission_is_taken_up_by_the_same_command(store: Store, docs: Path, planned: Planned) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from docmill.producer.model_text import load_model_text
from docmill.producer.batch_plan import PlanRequest, make_plan
from docmill.producer.submission import Submission
from docmill.producer.batch_writer import BatchWriter
from docmill.producer.task_files import load_task
from docmill.storage.database import Database
url, home, model, docs = sys.argv[1:]
text, task = load_model_text(model, Path(home)), load_task("summarize")
plan = make_plan(PlanRequest(model, max_tokens=100, chunk_tokens=60), task, text)
def kill(document):
    if document.name.endswith("c.txt"):
        os.kill(os.getpid(), signal.SIGKILL)
BatchWriter(Database(url)).submit(Submission([docs], plan, task, text), on_document=kill)
"""
    arguments = [str(store.database.url), str(store.home), store.text.model.name, str(docs)]
    died = subprocess.run([sys.executable, "-c", script, *arguments], check=False)
    assert died.returncode == -signal.SIGKILL
    assert store.rows("SELECT state, documents_total FROM batches") == [("validating", 2)]
    submitted = store.submit([docs], planned)
    assert submitted.resumed
    assert store.rows("SELECT state, documents_total FROM batches") == [("in_progress", 3)]
    assert store.contradictions() == []


def test_an_unfinished_submission_takes_in_what_was_added_since(store: Store, docs: Path, planned: Planned) -> None:
    def interrupt(document: Document | Skipped) -> None:
        if document.name.endswith("b.txt"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.submit([docs], planned, on_document=interrupt)
    (docs / "d.txt").write_text("Added.")
    assert store.submit([docs], planned).documents == 4
    assert store.rows("SELECT count(*) FROM batches") == [(1,)]
    assert store.rows("SELECT count(*) FROM documents") == [(4,)]


def test_a_finished_submission_is_found_again_unless_its_inputs_have_changed(
    store: Store, docs: Path, planned: Planned
) -> None:
    first = store.submit([docs], planned)
    again = store.submit([docs], planned, resume=Resume.ANY)
    assert (again.id, again.documents, again.resumed) == (first.id, 3, True)
    (docs / "d.txt").write_text("Added.")
    (docs / "empty.txt").touch()
    seen: list[str] = []
    grown = store.submit([docs], planned, resume=Resume.ANY, on_document=lambda document: seen.append(document.name))
    assert (grown.documents, grown.resumed) == (4, False)
    assert grown.id != first.id
    assert seen == [f"docs/{name}.txt" for name in ("a", "b", "c", "d", "empty")]  # each once
    (docs / "a.txt").write_text("Changed.")
    assert store.submit([docs], planned, resume=Resume.ANY).id not in (first.id, grown.id)
    assert store.contradictions() == []


def test_without_being_asked_a_finished_submission_is_made_again(store: Store, docs: Path, planned: Planned) -> None:
    first = store.submit([docs], planned)
    second = store.submit([docs], planned)
    assert second.id != first.id
    assert not second.resumed


def test_submissions_with_other_plans_do_not_resume_each_other(
    store: Store, docs: Path, planned: Planned, plan_of: Callable[..., Planned]
) -> None:
    other, task = plan_of(chunk_tokens=61, max_tokens=100)
    keys = {Submission([str(docs)], plan, task, store.text).key for plan in (planned[0], other)}
    assert len(keys) == 2
    first = store.submit([docs], planned)
    assert store.submit([docs], (other, task), resume=Resume.ANY).id != first.id


def test_the_content_hash_is_that_of_the_text_whatever_it_is_called(
    store: Store, tmp_path: Path, planned: Planned
) -> None:
    (tmp_path / "a.txt").write_bytes(b"gleich")
    (tmp_path / "b.txt").write_bytes("gleich".encode("utf-16"))
    store.submit([tmp_path / "a.txt", tmp_path / "b.txt"], planned)
    hashes = store.rows("SELECT content_hash, identity FROM documents")
    assert len({content for content, _ in hashes}) == 1
    assert len({identity for _, identity in hashes}) == 2
    assert hashes[0][0] == content_hash_of(Document("x", "y", lambda: iter(["gl", "eich"])))


def test_transactions_are_of_bounded_size(store: Store, tmp_path: Path, plan_of: Callable[..., Planned]) -> None:
    (tmp_path / "long.txt").write_text("Some words in a row. " * 3300)
    rows: list[int] = []
    largest = 0

    @sa.event.listens_for(store.database.engine, "after_cursor_execute")
    def count(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, executemany: bool) -> None:
        if statement.startswith("INSERT"):
            rows.append(len(parameters) if executemany else 1)

    @sa.event.listens_for(store.database.engine, "commit")
    def commit(_connection: Any) -> None:
        nonlocal largest
        largest = max(largest, sum(rows))
        rows.clear()

    store.submit([tmp_path / "long.txt"], plan_of(chunk_tokens=30))
    assert store.rows("SELECT chunk_count > 600 FROM documents") == [(1,)]
    assert 100 <= largest <= 200


def test_what_cannot_be_read_is_reported_and_the_rest_goes_on(store: Store, docs: Path, planned: Planned) -> None:
    (docs / "bad.pdf.txt").write_bytes(b"%PDF-1.7")
    (docs / "empty.txt").touch()
    (docs / "latin.txt").write_bytes("größer als sonst, und überall schöner ".encode("cp1252") * 20)
    (docs / "rows.jsonl").write_text('{"text": "fine"}\n{broken\n')
    submitted = store.submit([docs], planned)
    assert submitted.documents == 5
    assert [skipped.name for skipped in submitted.skipped] == [
        f"docs/{name}" for name in ("bad.pdf.txt", "empty.txt", "rows.jsonl:2")
    ]
    (warning,) = submitted.warnings
    assert warning.startswith("docs/latin.txt: not UTF-8; read as ")
    assert store.rows("SELECT remarks FROM documents WHERE name = 'docs/latin.txt'")[0][0].count("guess") == 1


def test_a_document_that_cannot_be_chunked_leaves_nothing_behind(
    store: Store, docs: Path, plan_of: Callable[..., Planned]
) -> None:
    (docs / "b.txt").write_text("Some words. " * 600 + "👩\u200d👩\u200d👧")
    submitted = store.submit([docs], plan_of(chunk_tokens=2))
    assert [skipped.name for skipped in submitted.skipped] == ["docs/b.txt"]
    assert "no room for text" in submitted.skipped[0].reason
    assert store.rows("SELECT name FROM documents ORDER BY position") == [("docs/a.txt",), ("docs/c.txt",)]
    assert store.rows("SELECT count(*) FROM chunks WHERE document_id NOT IN (SELECT id FROM documents)") == [(0,)]
    assert store.contradictions() == []


def test_a_submission_without_a_readable_document_fails_with_the_reason(
    store: Store, tmp_path: Path, planned: Planned
) -> None:
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ProducerError, match=r"no document could be read \(empty\.txt: it is empty\)"):
        store.submit([tmp_path / "empty.txt"], planned)
    assert store.rows("SELECT state, error FROM batches") == [(BatchState.FAILED, "empty.txt: it is empty")]


def test_members_of_one_name_and_text_are_one_document(store: Store, tmp_path: Path, planned: Planned) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in (("a.txt", "same"), ("b.txt", "same"), ("c.txt", "other")):
            archive.writestr(name, text)
    path.write_bytes(path.read_bytes().replace(b"b.txt", b"a.txt").replace(b"c.txt", b"a.txt"))
    store.submit([path], planned)
    assert store.rows("SELECT name FROM documents") == [("a.zip/a.txt",)] * 2
    assert store.contradictions() == []


def test_a_missing_input_stores_nothing(store: Store, docs: Path, planned: Planned) -> None:
    with pytest.raises(InputNotFound):
        store.submit([docs, "nothing-here.txt"], planned)
    assert store.rows("SELECT count(*) FROM batches") == [(0,)]


def test_control_characters_and_surrogates_reach_the_model_and_the_database(
    store: Store, tmp_path: Path, planned: Planned
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a\\u0000b \\ud800 c"}\n')
    store.submit([tmp_path / "rows.jsonl"], planned)
    assert "a\x00b \ufffd c" in store.prompts(0)[0]
    assert store.rows("SELECT text FROM chunks") == [("a\u2400b \ufffd c",)]
