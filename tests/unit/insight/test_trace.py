from __future__ import annotations

from docmill.insight.trace import Part, chunks_of, trace
from docmill.storage.reads.provenance import FinalText, StoredAnswer, StoredChunk, StoredDocument
from docmill.storage.states import DocumentState

CHUNKS = [
    StoredChunk(0, 0, 40, "Ants carry leaves. They live in gardens."),
    StoredChunk(1, 40, 73, "Whales sing at night in the deep."),
    StoredChunk(2, 60, 113, "in the deep. Owls hunt mice over the silent meadows."),
    StoredChunk(3, 113, 143, "Bees dance to show the flowers."),
]


def answers(level: int, *inputs: tuple[int, int]) -> list[StoredAnswer]:
    return [
        StoredAnswer(100 * level + position, level, position, first, last, f"answer {level}.{position}")
        for position, (first, last) in enumerate(inputs)
    ]


def document(strategy: str, stored: list[StoredAnswer], final: FinalText | None) -> StoredDocument:
    return StoredDocument(
        1, "b", "animals.txt", "animals.txt", DocumentState.DONE, {"merge_strategy": strategy}, CHUNKS, stored, final
    )


LEVEL_0 = answers(0, (0, 0), (1, 1), (2, 2), (3, 3))


def shape(part: Part) -> object:
    """(level, position, spans and parts) of all below."""
    return (part.level, part.position, (part.char_start, part.char_end), [shape(below) for below in part.parts])


def test_a_merged_summary_is_traced_through_every_level_to_its_chunks() -> None:
    stored = LEVEL_0 + answers(1, (0, 1), (2, 3)) + answers(2, (0, 1))
    (traced,) = trace(document("tree", stored, FinalText(200, 2, "answer 2.0")))
    leaves = [(None, at, (chunk.char_start, chunk.char_end), []) for at, chunk in enumerate(CHUNKS)]
    read = [(0, at, leaf[2], [leaf]) for at, leaf in enumerate(leaves)]
    assert shape(traced.made_of) == (
        2, 0, (0, 143), [(1, 0, (0, 73), read[:2]), (1, 1, (60, 143), read[2:])],
    )  # fmt: skip
    assert chunks_of(traced.made_of) == [0, 1, 2, 3]


def test_joined_answers_are_all_parts_of_the_summary() -> None:
    (traced,) = trace(document("tree", LEVEL_0 + answers(1, (0, 1), (2, 3)), FinalText(None, 1, "joined")))
    assert [(part.level, part.job_id, chunks_of(part)) for part in traced.made_of.parts] == [
        (1, 100, [0, 1]), (1, 101, [2, 3]),
    ]  # fmt: skip
    assert traced.made_of.job_id is None


def test_a_refined_summary_read_every_chunk_up_to_its_level() -> None:
    stored = answers(0, (0, 0)) + answers(1, (0, 0)) + answers(2, (0, 0))
    (traced,) = trace(document("refine", stored, FinalText(200, 2, "x")))
    assert chunks_of(traced.made_of) == [0, 1, 2]
    assert (traced.made_of.char_start, traced.made_of.char_end) == (0, 113)


def test_without_a_summary_each_answer_is_traced_to_its_chunk() -> None:
    traced = trace(document("none", LEVEL_0, None))
    assert [(text.text, chunks_of(text.made_of)) for text in traced] == [(f"answer 0.{at}", [at]) for at in range(4)]


def test_each_sentence_gets_its_nearest_passages() -> None:
    summary = "Owls hunt mice. Ants carry leaves. Dragons spit fire."
    (traced,) = trace(document("concat", LEVEL_0, FinalText(None, 0, summary)))
    owls, ants, dragons = traced.sentences
    assert [sentence.text for sentence in traced.sentences] == [
        "Owls hunt mice.", "Ants carry leaves.", "Dragons spit fire.",
    ]  # fmt: skip
    assert (owls.passages[0].chunk, owls.passages[0].char_start, owls.passages[0].char_end) == (2, 73, 112)
    assert owls.passages[0].text == "Owls hunt mice over the silent meadows."
    assert 0.5 < owls.passages[0].score < 1
    assert (ants.passages[0].chunk, round(ants.passages[0].score, 6)) == (0, 1.0)
    assert dragons.passages == ()


def test_the_overlap_of_two_chunks_is_one_passage() -> None:
    (traced,) = trace(document("concat", LEVEL_0, FinalText(None, 0, "Whales sing in the deep.")))
    places = [(passage.chunk, passage.char_start) for passage in traced.sentences[0].passages]
    assert places[0] == (1, 40)
    assert 2 not in dict(places)
