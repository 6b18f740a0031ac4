"""Texts and records that are submitted from memory."""

from __future__ import annotations

import json
from typing import Any

import pytest

from docmill import Client, DocumentState, IdempotencyKeyReused, NothingToDo, ProducerError, Record, RecordInvalid
from docmill.storage.errors import DatabaseUnavailable
from tests.unit.producer.store import Store

TEXTS = {"b": "The first text.", "a/2.txt": "The second text.\r\nIt has two lines.", "ü:3": "The third. " * 200}


def names(client: Client, batch: object) -> list[str]:
    return [document.name for document in client.results(str(batch))]


def test_the_id_is_the_documents_name_and_its_text_is_the_documents(client: Client, store: Store) -> None:
    batch = client.submit(texts=TEXTS, chunk_tokens=100)
    assert (batch.documents, list(batch.skipped), str(batch)) == (3, [], batch.id)
    documents = list(client.results(batch))
    assert [document.name for document in documents] == list(TEXTS)
    assert {document.source for document in documents} == {"memory"}
    chunks = store.rows("SELECT document_id, text FROM chunks ORDER BY document_id, position")
    for document in documents:
        stored = "".join(text for document_id, text in chunks if document_id == document.id)
        assert stored == TEXTS[document.name].replace("\r\n", "\n")
    assert store.contradictions() == []


def test_rows_are_records_by_the_names_of_their_fields(client: Client) -> None:
    rows = [{"key": 7, "body": "Seven.", "more": 1}, Record("eight", "Eight."), {"key": "nine", "body": "Nine."}]
    batch = client.submit(texts={"one": "One."}, records=iter(rows), id_field="key", text_field="body")
    assert names(client, batch) == ["one", "7", "eight", "nine"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"records": [Record("a", "x"), Record("a", "y")]}, "record 1 .*: an earlier record has the id 'a', too"),
        ({"texts": {"7": "x"}, "records": [{"id": 7, "text": "y"}]}, "record 1 .*: an earlier record has the id '7'"),
        ({"texts": {" ": "x"}}, "record 0 .*: its id is ' '; an id is a text that is not empty"),
        ({"records": [{"id": None, "text": "x"}]}, "its id is None"),
        ({"records": [{"id": True, "text": "x"}]}, "its id is True"),
        ({"texts": {"a\x1b[2J": "x"}}, "control characters"),
        ({"records": [{"id": "a", "body": "x"}]}, r"it has no field 'text' \(it has id, body\)"),
        ({"records": [{"text": "x"}]}, "it has no field 'id'"),
    ],
)
def test_an_unusable_record_stores_nothing(client: Client, store: Store, given: Any, message: str) -> None:
    with pytest.raises(RecordInvalid, match=message):
        client.submit(**given)
    assert store.rows("SELECT * FROM batches") == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"texts": ["x"]}, "texts must be a mapping {id: text}, not list"),
        ({"texts": "x"}, "texts must be a mapping {id: text}, not str"),
        ({"records": "abc"}, "records must be an iterable of records or rows, not str"),
        ({"records": 5}, "records must be an iterable of records or rows, not int"),
        ({"records": [None]}, "it is of type NoneType; give a Record or a mapping"),
        ({"records": ["a"]}, "it is of type str; give a Record or a mapping"),
    ],
)
def test_other_types_are_refused_with_what_is_expected(client: Client, given: Any, message: str) -> None:
    with pytest.raises(ProducerError, match=message):
        client.submit(**given)


def test_one_stop_string_is_not_taken_as_its_letters(client: Client, store: Store) -> None:
    client.submit(texts={"a": "Text."}, stop="END")
    ((sampling,),) = store.rows("SELECT sampling FROM jobs")
    assert json.loads(sampling)["stop"] == ["END"]


def test_a_record_without_text_is_skipped_with_its_reason(client: Client) -> None:
    batch = client.submit(records=[{"id": "a", "text": "Text."}, {"id": "b", "text": " "}, {"id": "c", "text": None}])
    assert [(s.name, s.reason) for s in batch.skipped] == [
        ("b", "it is empty"),
        ("c", "its text is NoneType, not a string"),
    ]
    with pytest.raises(NothingToDo, match="b: it is empty"):
        client.submit(texts={"b": ""})


def test_a_key_stands_for_these_texts_only(client: Client) -> None:
    first = client.submit(texts=TEXTS, idempotency_key="k")
    again = client.submit(texts=dict(TEXTS), idempotency_key="k")
    assert (again.id, again.resumed) == (first.id, True)
    with pytest.raises(IdempotencyKeyReused):
        client.submit(texts=TEXTS | {"b": "Another text."}, idempotency_key="k")


def test_documents_come_as_they_finish_and_each_once(
    client: Client, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = client.submit(texts=TEXTS, merge="concat")
    coming = client.as_completed(batch, interval_s=0.01)
    reports, calls = client._backend.reports, [0]
    read = reports.documents

    def run_in_between(batch_id: str, *wanted: Any) -> Any:
        """Nothing has finished, then the database is away, then everything has."""
        calls[0] += 1
        if calls[0] == 2:
            raise DatabaseUnavailable("the database does not answer")
        if calls[0] == 3:
            store.run(lambda job: None if job.document_id == 2 else "Answer.")
        return read(batch_id, *wanted)

    monkeypatch.setattr(reports, "documents", run_in_between)
    states = {document.name: document.state for document in coming}
    assert states == {"b": DocumentState.DONE, "a/2.txt": DocumentState.FAILED, "ü:3": DocumentState.DONE}
    assert calls[0] >= 4
